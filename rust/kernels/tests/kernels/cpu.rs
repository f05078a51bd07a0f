use llamacpu_kernels::cpu::*;

#[test]
fn every_instruction_set_is_found_by_its_name() {
    let names: Vec<_> = Isa::available().iter().map(|isa| isa.name()).collect();
    assert_eq!(Isa::available()[0], Isa::SCALAR);
    for isa in Isa::available() {
        assert_eq!(Isa::named(isa.name()).unwrap(), *isa);
    }
    let error = Isa::named("mmx").unwrap_err().to_string();
    assert!(error.contains("mmx") && error.contains(&names.join(", ")), "{error}");
    // If the processor is known because it is emulated.
    if let Ok(expected) = std::env::var("LLAMACPU_EXPECTED_ISAS") {
        assert_eq!(names.join(", "), expected);
    }
}

#[test]
fn every_set_that_can_be_chosen_is_what_its_name_says() {
    for isa in Isa::all() {
        assert_eq!(Isa::named(&isa.to_string()).unwrap(), isa);
        assert!(isa.features().all(|feature| Isa::detected().any(|found| found == feature)), "{isa}");
    }
}

#[test]
fn optional_features_are_in_a_set_where_the_processor_has_them_and_others_are_not() {
    use Feature::*;
    let cascade_lake = Isa::sets_with(&[Avx2, Avx512]);
    assert_eq!(cascade_lake.last().unwrap(), &("avx512", vec![Avx2, Avx512]));
    let zen4 = Isa::sets_with(&[Avx2, Avx512, Avx512Vbmi]);
    assert_eq!(zen4.iter().map(|set| set.0).collect::<Vec<_>>(), ["scalar", "avx2", "avx512"]);
    // Tiles in software go with what there is, and are never the fastest.
    let software = Isa::sets_with(&[Avx2, Avx512, Avx512Vbmi, SoftwareTiles]);
    assert_eq!(software[1], ("amx-software", vec![Avx2, Avx512, SoftwareTiles]));
    assert_eq!(software.last().unwrap().0, "avx512");
    assert_eq!(Isa::sets_with(&[SoftwareTiles])[1], ("amx-software", vec![SoftwareTiles]));
    // AMX is used with AVX-512 only.
    let sapphire_rapids = Isa::sets_with(&[Avx2, AvxVnni, Avx512, Avx512Vbmi, AmxInt8]);
    assert_eq!(sapphire_rapids.last().unwrap(), &("amx", vec![Avx2, Avx512, Avx512Vbmi, AmxInt8]));
    assert_eq!(Isa::sets_with(&[Avx2, AvxVnni, AmxInt8]).last().unwrap().0, "avxvnni");
    assert_eq!(zen4.last().unwrap().1, [Avx2, Avx512, Avx512Vbmi]);
    let with_both = Isa::sets_with(&[Avx2, AvxVnni, Avx512, Avx512Vbmi]);
    assert_eq!(with_both[2], ("avxvnni", vec![Avx2, AvxVnni]));
    assert_eq!(with_both[3].1, [Avx2, Avx512, Avx512Vbmi]);
    // No kernels are written for AVX-512 without AVX2.
    assert_eq!(Isa::sets_with(&[Avx512, Avx512Vbmi]), [("scalar", vec![])]);
    assert_eq!(Isa::sets_with(&[DotProduct, I8mm])[2], ("i8mm", vec![DotProduct, I8mm]));
}

#[test]
fn only_optional_features_can_be_left_out_of_a_set() {
    for (name, word) in [("scalar,-avx2", "-avx2"), ("scalar,", "\"\""), ("scalar,avx512vbmi", "avx512vbmi")] {
        let error = Isa::named(name).unwrap_err().to_string();
        assert!(error.contains(word) && error.contains("no optional feature"), "{error}");
    }
    if let Ok(isa) = Isa::named("avx512,-avx512vbmi") {
        assert!(isa.has(Feature::Avx512) && !isa.has(Feature::Avx512Vbmi));
        let error = Isa::named("avx512,-avx2").unwrap_err().to_string();
        assert!(error.contains("-avx2") && error.contains("expected -avx512vbmi"), "{error}");
    }
}
