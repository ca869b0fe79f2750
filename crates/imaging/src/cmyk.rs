//! Cyan, magenta, yellow and black to RGB without a profile, in Pillow's arithmetic.

/// `(255 - k) · (255 - c) / 255`, of each ink; 255 is full ink.
pub(crate) fn to_rgb([cyan, magenta, yellow, black]: [u8; 4]) -> [u8; 3] {
    let light = 255 - u32::from(black);
    [cyan, magenta, yellow].map(|ink| {
        // The quotient by 255, rounded.
        let product = u32::from(ink) * light + 128;
        (light - (((product >> 8) + product) >> 8)) as u8
    })
}
