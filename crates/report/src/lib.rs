//! Charts and pages in HTML and SVG: one way to escape, one page, one table.
//!
//! | wanted | made by |
//! |---|---|
//! | anything with tags | [`Element`], escaped and closed by construction |
//! | a whole page | [`page()`] |
//! | a table of figures or words | [`Table`] and the cells beside it |
//! | a chart | [`chart`] |
//! | titled tables of plain text, as HTML or Markdown | [`Sheet`] |
//! | Markdown | [`markdown`] |
//!
//! Pages work offline: no script, no font, no file from elsewhere. Nothing here knows what is reported.

pub mod chart;
mod element;
pub mod markdown;
mod page;
mod sheet;
mod table;

pub use element::Element;
pub use page::page;
pub use sheet::{Sheet, SheetTable};
pub use table::{Table, breakable, figure, figure_with, head, name, name_with, scroll, words};
