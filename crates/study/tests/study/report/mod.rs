//! The report of made-up studies: whole, unfinished and hostile.

mod files;
mod html;
mod sample;
mod tables;
