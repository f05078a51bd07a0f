//! The same bytes on all instruction sets and for any number of threads, errors within bounds, and what is refused.

use llamacpu_kernels::context::Context;
use llamacpu_kernels::conversion::*;
use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::threads::Pool;

use crate::emulated;

/// Rows with zeros, subnormal numbers, constants, outliers and ordinary values.
fn values(rows: usize, columns: usize) -> Vec<f32> {
    let mut state = 0x2545_f491_4f6c_dd1d_u64;
    let mut random = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        (state >> 40) as f32 / (1_u32 << 24) as f32 - 0.5
    };
    let row = |row: usize, at: usize, x: f32| match (row % 6, at) {
        (1, _) => 0.0,
        (2, _) => 1e-41 * x,
        (3, _) => 0.37,
        (4, 100) => 30.0,
        (5, _) => -x.abs(),
        _ => x,
    };
    (0..rows * columns).map(|index| row(index / columns, index % columns, random() + random())).collect()
}

fn converted(isa: Isa, threads: usize, format: Format, values: &[f32], importance: Option<&[f32]>) -> Vec<u8> {
    let columns = importance.map_or(512, <[f32]>::len);
    let input: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
    let mut output = vec![0xaa; values.len() / columns * format.row_bytes(columns).unwrap()];
    let pool = Pool::new(threads).unwrap();
    let conversion = Conversion { from: Format::F32, to: format, columns, importance };
    conversion.run(&Context::new(isa, &pool), Stored::Bytes(&input), &mut output).unwrap();
    output
}

#[test]
fn instruction_sets_and_threads_give_the_same_bytes() {
    let values = values(if emulated() { 6 } else { 42 }, 512);
    let importance: Vec<f32> = (0..512).map(|column| (column % 7) as f32 * 3.0).collect();
    for format in Format::all() {
        for importance in [None, Some(importance.as_slice())] {
            let expected = converted(Isa::SCALAR, 1, *format, &values, importance);
            for isa in Isa::available() {
                let found = converted(*isa, 3, *format, &values, importance);
                assert!(found == expected, "{format:?} on {}", isa.name());
            }
        }
    }
}

#[test]
fn weighted_errors_are_smaller_with_their_importance() {
    // Eight ordinary rows: an outlier would outweigh the importance of its column.
    let values = values(1, 8 * 512);
    let importance: Vec<f32> = (0..512).map(|column| if column % 5 == 0 { 50.0 } else { 0.5 }).collect();
    for format in Format::all() {
        let info = format.info();
        if info.block_elements == 1 || matches!(format, Format::Q8_0 | Format::MXFP4 | Format::TQ1_0 | Format::TQ2_0) {
            continue;
        }
        let error = |bytes: &[u8]| -> f64 {
            let mut back = vec![0.0; values.len()];
            format.dequantize(bytes, &mut back).unwrap();
            let terms = values.iter().zip(&back).zip(importance.iter().cycle());
            terms.map(|((x, y), w)| f64::from(*w) * f64::from(x - y).powi(2)).sum()
        };
        let isa = Isa::chosen().unwrap();
        let with = error(&converted(isa, 1, *format, &values, Some(&importance)));
        let without = error(&converted(isa, 1, *format, &values, None));
        assert!(with < without, "{format:?}: {with} with, {without} without");
    }
}

#[test]
fn only_the_ratios_of_importance_matter() {
    let values = values(6, 512);
    let importance: Vec<f32> = (0..512).map(|column| 1.0 + (column % 7) as f32).collect();
    let small: Vec<f32> = importance.iter().map(|value| value * 2.0_f32.powi(-100)).collect();
    let isa = Isa::chosen().unwrap();
    for format in [Format::Q4_K, Format::Q3_K, Format::Q4_0, Format::IQ2_XS, Format::IQ4_XS] {
        let found = converted(isa, 1, format, &values, Some(&small));
        assert!(found == converted(isa, 1, format, &values, Some(&importance)), "{format:?}");
    }
}

#[test]
fn what_cannot_be_held_is_refused_by_row_and_column() {
    let pool = Pool::new(2).unwrap();
    let context = Context::new(Isa::SCALAR, &pool);
    for format in Format::all() {
        for bad in [f32::NAN, f32::INFINITY, f32::NEG_INFINITY].into_iter().take(if emulated() { 1 } else { 3 }) {
            let mut values = vec![0.5_f32; 80 * 512];
            values[70 * 512 + 3] = bad;
            values[75 * 512] = bad;
            let input: Vec<u8> = values.iter().flat_map(|value| value.to_le_bytes()).collect();
            let mut output = vec![0; 80 * format.row_bytes(512).unwrap()];
            let conversion = Conversion { from: Format::F32, to: *format, columns: 512, importance: None };
            let error = conversion.run(&context, Stored::Bytes(&input), &mut output).unwrap_err().to_string();
            assert!(error.contains("row 70, column 3"), "{error}");
        }
    }
    let mut output = [0; 144];
    for importance in [vec![1.0; 255], vec![-1.0; 256], vec![f32::NAN; 256]] {
        let conversion =
            Conversion { from: Format::F32, to: Format::Q4_K, columns: 256, importance: Some(&importance) };
        assert!(conversion.run(&context, Stored::Bytes(&[0; 1024]), &mut output).is_err());
    }
}
