//! The report of made-up studies: whole, unfinished and hostile.

mod html;
mod sample;
mod tables;
