//! RLE compression (DICOM PS3.5, annex G): PackBits, a segment for each byte of each sample.

/// Most segments that a header can name.
const MAX_SEGMENTS: usize = 15;

/// Decodes a frame to `samples`, pixel by pixel, each of `bytes_per_sample`; the reason if it does not hold them all.
pub(super) fn decode(
    frame: &[u8],
    pixels: usize,
    channels: usize,
    bytes_per_sample: usize,
) -> Result<Vec<u32>, String> {
    let (header, _) = frame.as_chunks();
    let numbers: Vec<usize> = header.iter().take(16).map(|&number| u32::from_le_bytes(number) as usize).collect();
    let expected = channels * bytes_per_sample;
    let [segments, offsets @ ..] = &numbers[..] else { return Err("the RLE header is cut short".into()) };
    if *segments != expected || offsets.len() != MAX_SEGMENTS {
        return Err(format!("the RLE header names {segments} segments; expected {expected}"));
    }
    let mut samples = vec![0u32; pixels * channels];
    for (segment, &start) in offsets.iter().take(expected).enumerate() {
        // The most significant byte comes first (G.2).
        let (channel, shift) = (segment / bytes_per_sample, 8 * (bytes_per_sample - 1 - segment % bytes_per_sample));
        let bytes = frame.get(start..).filter(|_| start >= 64);
        let bytes = bytes.ok_or_else(|| format!("RLE segment {segment} begins at byte {start} of {}", frame.len()))?;
        let filled = unpack(bytes, samples[channel..].iter_mut().step_by(channels), shift);
        if filled < pixels {
            return Err(format!("RLE segment {segment} ends after {filled} of {pixels} samples"));
        }
    }
    Ok(samples)
}

/// Fills `samples` from runs (G.3.2); gives how many were filled.
fn unpack<'s>(mut bytes: &[u8], mut samples: impl Iterator<Item = &'s mut u32>, shift: usize) -> usize {
    let mut filled = 0;
    while let [control, rest @ ..] = bytes {
        let literal = usize::from(*control) + 1;
        let (run, used) = match control {
            0..128 => (&rest[..literal.min(rest.len())], literal.min(rest.len())),
            128 => (&rest[..0], 0),
            129.. => (&rest[..rest.len().min(1)], rest.len().min(1)),
        };
        let times = if *control > 128 { 257 - usize::from(*control) } else { 1 };
        for &byte in std::iter::repeat_n(run, times).flatten() {
            let Some(sample) = samples.next() else { return filled };
            *sample |= u32::from(byte) << shift;
            filled += 1;
        }
        bytes = &rest[used..];
    }
    filled
}
