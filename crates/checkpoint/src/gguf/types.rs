//! The numbers that GGUF gives to tensor types.

use tensor::Format;

/// The name of tensor type `id` in ggml, in lower case but for the K; `None` if there never was one.
pub(crate) fn name(id: u32) -> Option<&'static str> {
    TYPES.iter().find(|(known, _)| *known == id).map(|(_, name)| *name)
}

/// The format of tensor type `id`, if this program reads it: formats have ggml's names, so one that
/// `tensor` learns is known here too.
pub(crate) fn format(id: u32) -> Option<Format> {
    name(id).and_then(|name| Format::parse(name).ok())
}

/// The formats that can be read, for messages.
pub(crate) fn known() -> String {
    Format::ALL.iter().map(|format| format.name()).collect::<Vec<_>>().join(", ")
}

/// Every type that ggml has or had. Numbers 4, 5 and 31 to 33, 36 to 38 are those of types that it gave up.
const TYPES: &[(u32, &str)] = &[
    (0, "f32"),
    (1, "f16"),
    (2, "q4_0"),
    (3, "q4_1"),
    (4, "q4_2"),
    (5, "q4_3"),
    (6, "q5_0"),
    (7, "q5_1"),
    (8, "q8_0"),
    (9, "q8_1"),
    (10, "q2_K"),
    (11, "q3_K"),
    (12, "q4_K"),
    (13, "q5_K"),
    (14, "q6_K"),
    (15, "q8_K"),
    (16, "iq2_xxs"),
    (17, "iq2_xs"),
    (18, "iq3_xxs"),
    (19, "iq1_s"),
    (20, "iq4_nl"),
    (21, "iq3_s"),
    (22, "iq2_s"),
    (23, "iq4_xs"),
    (24, "i8"),
    (25, "i16"),
    (26, "i32"),
    (27, "i64"),
    (28, "f64"),
    (29, "iq1_m"),
    (30, "bf16"),
    (31, "q4_0_4_4"),
    (32, "q4_0_4_8"),
    (33, "q4_0_8_8"),
    (34, "tq1_0"),
    (35, "tq2_0"),
    (36, "iq4_nl_4_4"),
    (37, "iq4_nl_4_8"),
    (38, "iq4_nl_8_8"),
    (39, "mxfp4"),
    (40, "nvfp4"),
    (41, "q1_0"),
    (42, "q2_0"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_format_has_a_number() {
        for format in Format::ALL {
            assert!(TYPES.iter().any(|(id, _)| super::format(*id) == Some(*format)), "{format}");
        }
        assert_eq!(format(8), Some(Format::Q8_0));
        assert_eq!(format(30), Some(Format::BF16));
        assert_eq!((format(26), name(26)), (None, Some("i32")));
        assert_eq!(name(1000), None);
    }
}
