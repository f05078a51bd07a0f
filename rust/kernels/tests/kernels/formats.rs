//! Golden vectors of the reference dequantizer, and round trips.

mod compression;
mod nvfp4;

use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::*;

/// Offsets of the f16 scale (set to 0.25) and minimum (0.125) in a block.
fn scale_offsets(format: Format) -> (Option<usize>, Option<usize>) {
    match format {
        Format::Q4_1 | Format::Q5_1 | Format::Q4_K | Format::Q5_K => (Some(0), Some(2)),
        Format::Q2_K => (Some(80), Some(82)),
        Format::Q3_K => (Some(108), None),
        Format::Q6_K => (Some(208), None),
        Format::TQ1_0 => (Some(52), None),
        Format::TQ2_0 => (Some(64), None),
        Format::MXFP4 | Format::NVFP4 | Format::IQ1_M => (None, None),
        _ => (Some(0), None),
    }
}

/// A block of bytes `37 · i + 11` with plain scales.
fn golden_block(format: Format) -> Vec<u8> {
    let mut block: Vec<u8> = (0..format.info().block_bytes).map(|i| (37 * i + 11) as u8).collect();
    let (scale, minimum) = scale_offsets(format);
    for (at, bits) in [(scale, 0x3400_u16), (minimum, 0x3000)] {
        if let Some(at) = at {
            block[at..at + 2].copy_from_slice(&bits.to_le_bytes());
        }
    }
    if format == Format::MXFP4 {
        block[0] = 0x7f;
    }
    if format == Format::NVFP4 {
        block[..4].copy_from_slice(&[0x38, 0x40, 0x30, 0x28]);
    }
    if format == Format::IQ1_M {
        // The f16 scale is stored in the high nibbles of the odd scale bytes, lowest bits first.
        for (at, nibble) in [(49, 0x00), (51, 0x00), (53, 0x40), (55, 0x30)] {
            block[at] = block[at] & 15 | nibble;
        }
    }
    block
}

/// First four values, last value, sum, sum of (index + 1) · value of the golden block.
const GOLDEN: &[(Format, [f32; 4], f32, f64, f64)] = &[
    (Format::Q4_0, [-0.75, 0.5, 1.75, -1.0], 0.0, -5.25, -129.5),
    (Format::Q4_1, [3.875, 1.125, 2.375, 3.625], 3.125, 65.25, 1061.75),
    (Format::Q5_0, [2.25, -0.5, 0.75, -2.0], 0.25, 3.75, 28.0),
    (Format::Q5_1, [4.875, 6.125, 7.375, 4.625], 1.375, 130.25, 2041.25),
    (Format::Q8_0, [21.25, 30.5, -24.25, -15.0], -12.0, -44.0, -2020.0),
    (Format::Q2_K, [8.25, 0.0, 2.75, 5.5], 1.125, 514.75, 60782.5),
    (Format::Q3_K, [20.25, -27.0, 6.75, -13.5], 10.5, 239.5, 44286.25),
    (Format::Q4_K, [78.875, -6.375, 32.375, 71.125], 12.125, 13610.0, 1_893_210.0),
    (Format::Q5_K, [202.875, -6.375, 156.375, 71.125], 27.125, 29054.0, 4_006_862.0),
    (Format::Q6_K, [-357.75, 424.0, 145.75, -132.5], -15.0, 1153.0, 196_105.0),
    (Format::IQ4_NL, [-8.75, 6.25, 28.25, -12.25], 0.25, -64.25, -1729.75),
    (Format::IQ4_XS, [16.25, -0.25, -17.25, 20.75], -4.0, -2751.25, -522_783.5),
    (Format::IQ3_S, [-20.25, 60.75, -87.75, -47.25], 56.25, 364.0, 50697.5),
    (Format::IQ3_XXS, [-3.25, 2.25, -1.75, 0.75], -3.75, -171.0, 755.75),
    (Format::IQ2_S, [-36.28125, 21.09375, -6.75, 6.75], 19.53125, -200.15625, -15520.15625),
    (Format::IQ2_XS, [-2.75, 8.59375, -2.75, -14.78125], -4.75, 372.625, 30799.53125),
    (Format::IQ2_XXS, [-14.78125, 14.78125, 8.59375, -8.59375], -20.15625, 190.9375, 9198.25),
    (Format::IQ1_S, [-0.65625, 0.09375, 0.84375, 0.84375], -1.09375, 5.0, -2957.25),
    (Format::IQ1_M, [-0.21875, 1.53125, -0.21875, -0.21875], -0.46875, 10.25, -559.0),
    (Format::TQ1_0, [-0.25, -0.25, -0.25, 0.0], -0.25, -0.5, -32.75),
    (Format::TQ2_0, [0.5, -0.25, 0.0, 0.25], -0.25, 32.25, 4311.25),
    (Format::MXFP4, [0.0, 3.0, -1.0, -6.0], 3.0, 12.5, 319.0),
    (Format::NVFP4, [-6.0, 2.0, -0.5, -4.0], 0.125, -3.125, -122.875),
    (Format::Q1_0, [0.25, -0.25, 0.25, -0.25], 0.25, 0.0, -133.0),
    (Format::Q2_0, [0.0, 0.0, 0.0, 0.0], 0.25, 7.5, 203.25),
];

#[test]
fn every_instruction_set_dequantizes_the_same() {
    for (format, ..) in GOLDEN {
        let info = format.info();
        let mut state = 12345_u32;
        let bytes: Vec<u8> = (0..5 * info.block_bytes)
            .map(|_| {
                state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
                (state >> 24) as u8
            })
            .collect();
        let mut expected = vec![0.0; 5 * info.block_elements];
        format.dequantize(&bytes, &mut expected).unwrap();
        for isa in Isa::available() {
            let mut values = vec![f32::NAN; expected.len()];
            (info.dequantize_on)(*isa, &bytes, &mut values);
            for (index, (value, expected)) in values.iter().zip(&expected).enumerate() {
                let same = value.to_bits() == expected.to_bits() || value.is_nan() && expected.is_nan();
                assert!(same, "{} on {isa:?}: weight {index} is {value}, expected {expected}", info.name);
            }
        }
    }
}

#[test]
fn golden_vectors() {
    for (format, first, last, sum, weighted) in GOLDEN {
        let mut values = vec![f32::NAN; format.info().block_elements];
        format.dequantize(&golden_block(*format), &mut values).unwrap();
        assert_eq!(&values[..4], first, "{format:?}");
        assert_eq!(values.last(), Some(last), "{format:?}");
        assert_eq!(values.iter().map(|value| f64::from(*value)).sum::<f64>(), *sum, "{format:?}");
        let found: f64 = values.iter().enumerate().map(|(i, value)| (i as f64 + 1.0) * f64::from(*value)).sum();
        assert_eq!(found, *weighted, "{format:?}");
    }
}

#[test]
fn every_quantized_format_has_a_golden_vector() {
    for format in Format::all() {
        let golden = GOLDEN.iter().any(|row| row.0 == *format);
        assert!(golden || format.info().block_elements == 1, "{format:?}");
    }
}

#[test]
fn the_table_is_in_order_and_unique() {
    for (index, format) in Format::all().iter().enumerate() {
        let row = format.info();
        assert_eq!((*format as usize, row.format), (index, *format));
        assert_eq!(Format::from_ggml(row.ggml_id), Some(*format));
        assert_eq!(Format::named(row.name), Some(*format));
        assert_eq!(row.name, format!("{format:?}"));
    }
    assert_eq!(Format::from_ggml(4), None);
}

#[test]
fn row_bytes_counts_whole_blocks() {
    assert_eq!(Format::Q4_K.row_bytes(512), Some(288));
    assert_eq!(Format::Q4_K.row_bytes(500), None);
    assert_eq!(Format::F32.row_bytes(usize::MAX), None);
    assert_eq!(Format::Q8_0.row_bytes(0), Some(0));
}

#[test]
fn sizes_are_checked() {
    assert!(Format::Q4_0.dequantize(&[0; 17], &mut [0.0; 32]).is_err());
    assert!(Format::Q4_0.dequantize(&[0; 18], &mut [0.0; 31]).is_err());
    assert!(Format::Q8_0.quantize(&[0.0; 32], &mut [0; 33]).is_err());
}

/// Quantizing and dequantizing leaves an error of at most half a step; the step follows from the format's bits.
#[test]
fn quantizing_is_close() {
    let values: Vec<f32> = (0..512).map(|i| ((i * i + 7 * i) as f32 * 0.37).sin()).collect();
    for format in Format::all() {
        let mut bytes = vec![0xaa; format.row_bytes(values.len()).unwrap()];
        let mut back = vec![f32::NAN; values.len()];
        format.quantize(&values, &mut bytes).unwrap();
        format.dequantize(&bytes, &mut back).unwrap();
        let worst = values.iter().zip(&back).map(|(a, b)| (a - b).abs()).fold(0.0, f32::max);
        let allowed = match format {
            Format::F32 => 0.0,
            Format::F16 => 0.0005,
            Format::BF16 => 0.004,
            Format::Q8_0 => 0.0045,
            Format::Q6_K => 0.04,
            Format::Q5_0 | Format::Q5_1 | Format::Q5_K => 0.07,
            Format::Q4_0 | Format::Q4_1 | Format::Q4_K | Format::IQ4_NL | Format::IQ4_XS => 0.16,
            Format::MXFP4 | Format::NVFP4 => 0.26,
            Format::Q3_K => 0.3,
            Format::Q2_K | Format::IQ3_S | Format::IQ3_XXS => 0.45,
            Format::IQ2_S | Format::IQ2_XS | Format::IQ2_XXS => 0.75,
            _ => 1.0,
        };
        assert!(worst <= allowed, "{format:?}: {worst}");
    }
}

#[test]
fn zeros_stay_zeros() {
    for format in Format::all() {
        let mut bytes = vec![0xaa; format.row_bytes(256).unwrap()];
        let mut back = [f32::NAN; 256];
        format.quantize(&[0.0; 256], &mut bytes).unwrap();
        format.dequantize(&bytes, &mut back).unwrap();
        assert_eq!(back, [0.0; 256], "{format:?}");
    }
}

/// The smallest numbers have an infinite reciprocal.
#[test]
fn the_smallest_numbers_are_written_as_numbers_about_as_small() {
    for format in Format::all() {
        for largest in [1e-45, 1e-42, 2.9e-39, 3e-39, 1e-38, 1e-36, 1e-30] {
            let values: Vec<f32> = (0..256).map(|i| largest * [1.0, -0.5, 0.0, -1.0, 0.25][i % 5]).collect();
            let mut bytes = vec![0xaa; format.row_bytes(256).unwrap()];
            let mut back = [f32::NAN; 256];
            format.quantize(&values, &mut bytes).unwrap();
            format.dequantize(&bytes, &mut back).unwrap();
            assert!(back.iter().all(|value| value.abs() <= 2.0 * largest), "{format:?}: {largest:e}");
            if matches!(format, Format::TQ1_0 | Format::TQ2_0) {
                // Each of the five digits, or each bit pair, is a quant: 0, 1 or 2.
                let mut one = bytes.clone();
                let scale = scale_offsets(*format).0.unwrap();
                one[scale..scale + 2].copy_from_slice(&0x3c00_u16.to_le_bytes());
                format.dequantize(&one, &mut back).unwrap();
                assert!(back.iter().all(|value| value.abs() <= 1.0), "{format:?}: {largest:e}");
            }
        }
    }
}
