use std::io::Write;

use super::*;

fn file_with(bytes: &[u8], name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("llamacpu-mapping-{}-{name}", std::process::id()));
    File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("the temporary folder can be written");
    path
}

#[test]
fn a_mapped_range_has_the_bytes_of_the_file_and_survives_release() {
    let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    let path = file_with(&content, "range");
    let map = Mapping::open(&path).expect("mapped");
    map.advise_sequential();
    map.advise_needed(10, 20_000);
    map.advise_needed(usize::MAX, 2);
    assert_eq!(map.len(), content.len());
    let bytes = Bytes::of_file(&map, 777, 60_000).expect("inside");
    assert_eq!(&*bytes, &content[777..60_777]);
    bytes.release();
    assert_eq!(&*bytes, &content[777..60_777]);
    let part = bytes.slice(3, 5).expect("inside");
    part.release();
    assert_eq!(&*part, &content[780..785]);
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn ranges_outside_are_errors() {
    let path = file_with(&[1; 100], "outside");
    let map = Mapping::open(&path).expect("mapped");
    for (offset, len) in [(0, 101), (100, 1), (u64::MAX, 2), (2, u64::MAX), (u64::MAX, u64::MAX)] {
        assert!(matches!(Bytes::of_file(&map, offset, len), Err(Error::Shape(_))), "{offset} {len}");
    }
    assert!(Bytes::of_file(&map, 100, 0).expect("nothing fits everywhere").is_empty());
    let owned = Bytes::owned(vec![1, 2, 3]);
    assert_eq!(&*owned.slice(1, 2).expect("inside"), &[2, 3]);
    assert!(owned.slice(1, 2).and_then(|part| part.slice(1, 2)).is_err());
    owned.release();
    assert_eq!(&*owned, &[1, 2, 3]);
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn what_is_no_model_file_is_refused_with_its_name() {
    let empty = file_with(&[], "empty");
    for path in [empty.clone(), std::env::temp_dir(), std::env::temp_dir().join("llamacpu-no-such-file")] {
        let message = Mapping::open(&path).expect_err("refused").to_string();
        assert!(message.contains(&path.display().to_string()), "{message}");
    }
    std::fs::remove_file(empty).expect("removed");
}

#[test]
fn aligned_bytes_are_zero_and_aligned_at_every_size() {
    for len in [0, 1, 63, 64, 65, 4096, (2 << 20) - 1, 2 << 20, (5 << 20) + 3] {
        let mut buffer = AlignedBytes::zeroed(len).expect("allocated");
        assert_eq!(buffer.len(), len);
        let alignment = if len >= 2 << 20 { 2 << 20 } else { 64 };
        assert_eq!(buffer.as_ptr().align_offset(alignment), 0);
        assert!(buffer.iter().all(|byte| *byte == 0));
        assert_eq!(buffer.view::<f32>().len(), len / 4);
        buffer.view_mut::<f32>().fill(1.5);
        assert!(buffer.view::<f32>().iter().all(|number| *number == 1.5));
    }
    assert!(AlignedBytes::zeroed(usize::MAX).is_err());
    assert!(AlignedBytes::zeroed(usize::MAX / 2).is_err());
}
