//! Formula-driven images and synthetic phantoms: under construction.
