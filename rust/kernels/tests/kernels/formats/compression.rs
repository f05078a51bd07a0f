//! Compressed weights decompress to the layout that kernels read, and take no more memory than allowed.

use llamacpu_kernels::cpu::Isa;
use llamacpu_kernels::formats::Format;
use llamacpu_kernels::internals::formats::*;

/// The same format, not compressed.
struct Plain<B>(std::marker::PhantomData<B>);

impl<B: Blocks> Blocks for Plain<B> {
    const ELEMENTS: usize = B::ELEMENTS;
    const BYTES: usize = B::BYTES;
    const PACKING: Packing = B::PACKING;

    fn unpack(block: &[u8], out: &mut Unpacked) {
        B::unpack(block, out);
    }
}

/// Packs 16 rows of three random blocks both ways and compares.
fn compare<B: Blocks>(format: Format) {
    let columns = 3 * B::ELEMENTS;
    let mut state = 7_u32;
    let mut source = vec![0_u8; 3 * 16 * B::BYTES];
    for byte in &mut source {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        *byte = (state >> 24) as u8;
    }
    let plain = Layout::new(&B::PACKING, None, columns).unwrap();
    let compressed = Layout::new(&B::PACKING, B::FOLDING.as_ref(), columns).unwrap();
    let (mut expected, mut packed) = (vec![0; plain.group_bytes], vec![0; compressed.group_bytes]);
    pack_group::<Plain<B>>(&source, 16, plain, &mut expected);
    (format.info().pack)(Isa::SCALAR, &source, 16, compressed, &mut packed);
    let (from_quants, from_scales) = packed.split_at(compressed.quant_bytes);
    let (expected_quants, expected_scales) = expected.split_at(plain.quant_bytes);
    for isa in &Isa::all() {
        let (mut quants, mut scales) = (vec![0xaa; plain.quant_bytes], vec![0xaa; 24 * plain.block_scales]);
        let from_scales = &from_scales[..24 * compressed.block_scales];
        (format.info().decompress)(*isa, from_quants, from_scales, &mut quants, &mut scales);
        if B::FOLDING.as_ref().is_some_and(Compression::plain_quants) {
            quants.copy_from_slice(from_quants);
        }
        // Where the table ignores the fourth bit, it may have any value.
        let value =
            |byte: u8| B::PACKING.table.map(|table| (table[usize::from(byte & 15)], table[usize::from(byte >> 4)]));
        let wrong = quants.iter().zip(expected_quants).position(|(found, expected)| {
            found != expected && (B::PACKING.table.is_none() || value(*found) != value(*expected))
        });
        assert_eq!(wrong, None, "quants of {} with {}", format.info().name, isa);
        let wrong = scales.iter().zip(expected_scales).position(|(found, expected)| found != expected);
        assert_eq!(wrong, None, "scales of {} with {}", format.info().name, isa);
    }
}

#[test]
fn decompression_restores_every_bit() {
    compare::<Iq1S>(Format::IQ1_S);
    compare::<Iq1M>(Format::IQ1_M);
    compare::<Iq2Xxs>(Format::IQ2_XXS);
    compare::<Iq2Xs>(Format::IQ2_XS);
    compare::<Iq2S>(Format::IQ2_S);
    compare::<Iq3Xxs>(Format::IQ3_XXS);
    compare::<Iq3S>(Format::IQ3_S);
    compare::<Tq1_0>(Format::TQ1_0);
    compare::<Tq2_0>(Format::TQ2_0);
}

#[test]
fn every_compressed_format_is_compared() {
    let compressed: Vec<_> = Format::all().iter().filter(|format| format.info().compression.is_some()).collect();
    assert_eq!(compressed.len(), 9, "{compressed:?}");
}

#[test]
fn no_format_takes_more_than_five_quarters_of_its_file() {
    for format in Format::all() {
        let info = format.info();
        let Some(packing) = info.packing else { continue };
        let layout = Layout::new(packing, info.compression, 4096).unwrap();
        let (packed, file) = (layout.group_bytes, 16 * format.row_bytes(4096).unwrap());
        let bits = |bytes: usize| bytes as f64 / 8192.0;
        // The scale of 128 weights is stored with every 32 of them, which matters where these have few bits.
        let (most, of) = if *format == Format::Q1_0 { (4, 3) } else { (5, 4) };
        assert!(of * packed <= most * file, "{format:?}: {:.3} bits of {:.3}", bits(packed), bits(file));
    }
}

/// The digits of a byte in the order in which they are extracted.
fn digits_of(number: u32) -> [u8; 5] {
    [81, 27, 9, 3, 1].map(|power| (number / power % 3) as u8)
}

#[test]
fn base_3_digits_come_out_exactly() {
    for number in 0..243 {
        let mut rest = (number * 256_u32).div_ceil(243) as u8;
        let found = std::array::from_fn(|_| {
            let (digit, left) = digit(rest);
            rest = left;
            digit >> 6
        });
        assert_eq!(found, digits_of(number), "{number}");
    }
}
