use std::fs::File;
use std::io::Write;
use std::sync::Arc;

use llamacpu_kernels::Error;
use llamacpu_kernels::internals::mapping::*;
use llamacpu_kernels::mapping::*;

fn file_with(bytes: &[u8], name: &str) -> std::path::PathBuf {
    let path = std::env::temp_dir().join(format!("llamacpu-mapping-{}-{name}", std::process::id()));
    File::create(&path).and_then(|mut file| file.write_all(bytes)).expect("the temporary folder can be written");
    path
}

fn opened(path: &std::path::Path) -> Arc<SourceFile> {
    SourceFile::open(path).expect("opened")
}

fn mapped(path: &std::path::Path) -> Arc<Mapping> {
    let map = Mapping::of(&opened(path), Load::Map, None).expect("mapped");
    assert!(map.is_mapped());
    map
}

#[test]
fn a_mapped_range_has_the_bytes_of_the_file_and_survives_release() {
    let content: Vec<u8> = (0..100_000u32).map(|i| (i % 251) as u8).collect();
    let path = file_with(&content, "range");
    let map = mapped(&path);
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
    let map = mapped(&path);
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
fn what_is_no_model_file_is_refused() {
    let empty = file_with(&[], "empty");
    let message = Mapping::of(&opened(&empty), Load::Map, None).expect_err("refused").to_string();
    assert!(message.contains(&empty.display().to_string()), "{message}");
    assert!(SourceFile::open(&std::env::temp_dir()).is_err());
    assert!(SourceFile::open(&std::env::temp_dir().join("llamacpu-no-such-file")).is_err());
    std::fs::remove_file(empty).expect("removed");
}

fn refused(_: &File) -> std::io::Result<memmap2::Mmap> {
    Err(std::io::ErrorKind::Unsupported.into())
}

#[test]
fn file_systems_without_shared_maps_are_mapped_privately_and_those_without_maps_copied() {
    let content: Vec<u8> = (0..200_000u32).map(|i| (i % 251) as u8).collect();
    let path = file_with(&content, "refusing");
    for (mappers, is_mapped) in [(&[refused as Mapper, private][..], true), (&[refused, refused], false), (&[], false)]
    {
        let map = Mapping::with(&opened(&path), mappers, None).expect("opened in another way");
        assert_eq!((map.is_mapped(), map.check().is_ok()), (is_mapped, true));
        assert_eq!(&map[..], &content);
    }
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn a_copy_does_not_need_its_file() {
    let content = vec![7; 300_000];
    let path = file_with(&content, "copy");
    let copy = Mapping::of(&opened(&path), Load::Copy, None).expect("copied");
    File::create(&path).expect("shortened");
    assert!(copy.check().is_ok());
    assert_eq!(&copy[..], &content);
    let interrupted = Mapping::of(&opened(&file_with(&content, "copy")), Load::Copy, Some(&|| true));
    assert!(matches!(interrupted, Err(Error::Cancelled)));
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn discarding_takes_only_copies() {
    let path = file_with(&vec![7; 300_000], "discard");
    for load in [Load::Map, Load::Copy] {
        let map = Mapping::of(&opened(&path), load, None).expect("opened");
        let part = Bytes::of_file(&map, 100_000, 100_000).expect("inside");
        part.release();
        assert!(part.iter().all(|&byte| byte == 7));
        part.discard();
        assert!(map[..100_000].iter().chain(&map[200_000..]).all(|&byte| byte == 7));
        assert_eq!(part.iter().all(|&byte| byte == 7), load == Load::Map || !cfg!(target_os = "linux"));
    }
    std::fs::remove_file(path).expect("removed");
}

#[cfg(any(target_os = "linux", target_os = "macos"))]
#[test]
fn lost_pages_read_as_zeros_and_are_told() {
    let path = file_with(&vec![7; 1_000_000], "lost");
    for mapper in [shared as Mapper, private] {
        file_with(&vec![7; 1_000_000], "lost");
        let (map, other) = (Mapping::with(&opened(&path), &[mapper], None).expect("mapped"), mapped(&path));
        assert!(map.check().is_ok());
        File::options().write(true).open(&path).and_then(|file| file.set_len(10_000)).expect("shortened");
        assert!(map[..10_000].iter().all(|&byte| byte == 7));
        assert!(map[900_000..].iter().all(|&byte| byte == 0));
        assert!(map[500_000..].iter().all(|&byte| byte == 0));
        assert!(matches!(map.check(), Err(Error::Changed(_))));
        // Even when the file is as long as before: the bytes that were read are wrong.
        let whole = File::options().write(true).open(&path).and_then(|file| file.set_len(1_000_000));
        whole.expect("lengthened");
        assert!(matches!(map.check(), Err(Error::Changed(_))));
        drop(map);
        assert!(matches!(other.check(), Err(Error::Changed(_))));
    }
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn a_file_that_is_written_to_is_told_and_one_renamed_over_it_does_no_harm() {
    let path = file_with(&vec![7; 100_000], "written");
    let map = mapped(&path);
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::rename(file_with(&[8; 100], "new"), &path).expect("renamed");
    assert!(map.check().is_ok());
    assert!(map.iter().all(|&byte| byte == 7));
    let map = mapped(&path);
    std::thread::sleep(std::time::Duration::from_millis(20));
    std::fs::write(&path, [9; 100]).expect("written");
    assert!(matches!(map.check(), Err(Error::Changed(_))));
    std::fs::remove_file(path).expect("removed");
}

#[cfg(target_os = "linux")]
#[test]
fn mapped_bytes_leave_the_process_when_they_are_dropped() {
    let resident = || {
        let pages = std::fs::read_to_string("/proc/self/statm").expect("read");
        pages.split(' ').nth(1).and_then(|pages| pages.parse::<usize>().ok()).expect("a number") * page_size()
    };
    // Small enough to be on the heap, where the last one would keep everything below it.
    let mut all: Vec<_> = (0..400).map(|_| AlignedBytes::mapped(300_000, "a test").expect("mapped")).collect();
    for bytes in &mut all {
        bytes.fill(1);
    }
    let last = all.pop();
    let before = resident();
    drop(all);
    assert!(resident() + (100 << 20) < before);
    drop(last);
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
