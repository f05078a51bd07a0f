use std::collections::BTreeSet;
use std::path::PathBuf;

use llamacpu_kernels::internals::threads::{allowed_processors, choose, parse};

/// A directory like `/sys/devices` with these files.
struct Devices(PathBuf);

impl Devices {
    fn with(name: &str, files: &[(&str, &str)]) -> Self {
        let root = std::env::temp_dir().join(format!("llamacpu-devices-{}-{name}", std::process::id()));
        for (path, content) in files {
            let path = root.join(path);
            std::fs::create_dir_all(path.parent().expect("inside the root")).expect("created");
            std::fs::write(path, content).expect("written");
        }
        Self(root)
    }
}

impl Drop for Devices {
    fn drop(&mut self) {
        // There is nothing to remove for a machine without files.
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

fn count(devices: &Devices, allowed: &str, limit: usize) -> usize {
    let threads = choose(&parse(allowed), limit, &devices.0);
    assert!(!threads.why.is_empty());
    threads.count
}

#[test]
fn lists_are_read_as_the_kernel_writes_them() {
    assert_eq!(parse("0-3,8\n"), BTreeSet::from([0, 1, 2, 3, 8]));
    assert_eq!(parse("7"), BTreeSet::from([7]));
    assert_eq!(parse(""), BTreeSet::new());
    assert_eq!(parse("x,2-y,5"), BTreeSet::from([5]));
    assert!(parse("0-99999999999").len() <= 1 << 16);
}

#[test]
fn without_a_topology_every_allowed_processor_counts() {
    let devices = Devices::with("bare", &[]);
    assert_eq!(count(&devices, "0-7", 8), 8);
    assert_eq!(count(&devices, "0-7", 3), 3);
    assert_eq!(count(&devices, "", 1), 1);
}

#[test]
fn hardware_threads_of_a_core_count_once() {
    let name = |cpu: usize| format!("system/cpu/cpu{cpu}/topology/core_cpus_list");
    let files: Vec<(String, String)> =
        (0..8).map(|cpu| (name(cpu), format!("{},{}\n", cpu % 4, cpu % 4 + 4))).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), content.as_str())).collect();
    let devices = Devices::with("smt", &files);
    assert_eq!(count(&devices, "0-7", 8), 4);
    assert_eq!(count(&devices, "0,4,1", 3), 2);
    assert_eq!(count(&devices, "0-7", 2), 2);
    assert_eq!(count(&devices, "0,4", 2), 2, "a single core uses both");
    assert_eq!(count(&devices, "0", 1), 1);
}

#[test]
fn efficiency_cores_are_left_out() {
    let devices = Devices::with("hybrid", &[("cpu_core/cpus", "0-3\n"), ("cpu_atom/cpus", "4-11\n")]);
    assert_eq!(count(&devices, "0-11", 12), 4);
    assert_eq!(count(&devices, "4-11", 8), 8, "better than nothing");
    let name = |cpu: usize| format!("system/cpu/cpu{cpu}/cpu_capacity");
    let files: Vec<(String, &str)> = (0..8).map(|cpu| (name(cpu), if cpu < 4 { "446\n" } else { "1024\n" })).collect();
    let files: Vec<(&str, &str)> = files.iter().map(|(path, content)| (path.as_str(), *content)).collect();
    let devices = Devices::with("arm", &files);
    assert_eq!(count(&devices, "0-7", 8), 4);
    assert_eq!(count(&devices, "0-3", 4), 4, "the fastest of those allowed");
}

#[test]
fn the_reason_names_what_limits() {
    let devices = Devices::with("quota", &[]);
    let threads = choose(&parse("0-15"), 2, &devices.0);
    assert_eq!(threads.count, 2);
    assert_eq!(threads.why, "16 processors may be used, limited to 2 by the quota of the control group");
}

#[test]
fn this_process_may_run_somewhere() {
    assert!(!allowed_processors().expect("Linux says so").is_empty());
}
