//! The twelve bytes in which q4_K (and q5_K) keep eight scales and eight minima of six bits each.
//!
//! Bytes 0..4 hold scales 0..4 and bytes 4..8 minima 0..4, in their low six bits. Numbers 4..8 are
//! split: their low four bits are the nibbles of bytes 8..12 (scale low, minimum high), their top
//! two bits are the spare top bits of the bytes above, scales over scales and minima over minima.

/// Scales and minima, each 0..=63.
pub(super) type ScalesAndMins = ([u8; 8], [u8; 8]);

/// Takes the twelve bytes apart.
pub(super) fn unpack(bytes: &[u8; 12]) -> ScalesAndMins {
    let (mut scales, mut mins) = ([0; 8], [0; 8]);
    for i in 0..4 {
        let (scale, min, split) = (bytes[i], bytes[i + 4], bytes[i + 8]);
        scales[i] = scale & 63;
        mins[i] = min & 63;
        scales[i + 4] = split & 15 | scale >> 6 << 4;
        mins[i + 4] = split >> 4 | min >> 6 << 4;
    }
    (scales, mins)
}

/// Puts them together.
pub(super) fn pack((scales, mins): &ScalesAndMins) -> [u8; 12] {
    let mut bytes = [0; 12];
    for i in 0..4 {
        bytes[i] = scales[i] & 63 | scales[i + 4] >> 4 << 6;
        bytes[i + 4] = mins[i] & 63 | mins[i + 4] >> 4 << 6;
        bytes[i + 8] = scales[i + 4] & 15 | mins[i + 4] << 4;
    }
    bytes
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bit_survives() {
        for i in 0..16 {
            for value in 0..64 {
                let mut both: ScalesAndMins = Default::default();
                if i < 8 {
                    both.0[i] = value
                } else {
                    both.1[i - 8] = value
                }
                assert_eq!(unpack(&pack(&both)), both);
            }
        }
        let all: ScalesAndMins = ([63; 8], [63; 8]);
        assert_eq!(unpack(&pack(&all)), all);
        assert_eq!(pack(&all), [255; 12]);
    }
}
