//! The default number of threads: the processors that this process may use, within the quota of its control group, one per
//! physical core, fast cores only.
//!
//! The vector units, which limit the matrix products, and the memory access, which limits generation, belong to the core: a
//! second hardware thread adds nothing to either, and slow cores make the fast ones wait.

/// A number of threads and the reason for it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Threads {
    /// At least 1.
    pub count: usize,
    /// One line for the user that says what limits the number.
    pub why: String,
}

/// The number of threads that is likely to be fastest on this machine.
pub fn default_threads() -> Threads {
    // Respects affinity and, on Linux, the quotas of control groups (both versions) along their whole path.
    let limit = std::thread::available_parallelism().map_or(1, std::num::NonZero::get).min(super::MAX_THREADS);
    #[cfg(target_os = "linux")]
    if let Some(allowed) = linux::affinity() {
        return linux::choose(&allowed, limit, std::path::Path::new("/sys/devices"));
    }
    Threads { count: limit, why: format!("{} may be used", processors(limit)) }
}

fn processors(count: usize) -> String {
    if count == 1 { "1 processor".into() } else { format!("{count} processors") }
}

#[cfg(target_os = "linux")]
pub(crate) mod linux {
    use std::collections::BTreeSet;
    use std::path::Path;

    use super::{Threads, processors};

    /// Cores slower than this fraction of the fastest are left out.
    const SLOW: f64 = 0.6;

    /// The processors that the scheduler may give to this process; `None` if it does not say.
    pub fn affinity() -> Option<BTreeSet<usize>> {
        // SAFETY: a processor set is plain memory, for which zero is the empty set.
        let mut set: libc::cpu_set_t = unsafe { std::mem::zeroed() };
        // SAFETY: the pointer and the size are those of `set`; the call writes no more than that.
        let outcome = unsafe { libc::sched_getaffinity(0, size_of::<libc::cpu_set_t>(), &raw mut set) };
        // SAFETY: CPU_ISSET looks only inside the set for numbers below its size in bits.
        let contains = |cpu: &usize| unsafe { libc::CPU_ISSET(*cpu, &set) };
        (outcome == 0).then(|| (0..8 * size_of::<libc::cpu_set_t>()).filter(contains).collect())
    }

    /// One thread per fast physical core among the allowed processors, `limit` at most. `devices` is `/sys/devices`.
    pub fn choose(allowed: &BTreeSet<usize>, limit: usize, devices: &Path) -> Threads {
        let mut reasons = vec![format!("{} may be used", processors(allowed.len().max(1)))];
        let fast = fast_processors(allowed, devices);
        if fast.len() < allowed.len() {
            reasons.push(format!("{} of them on fast cores", fast.len()));
        }
        let cores = fast.iter().map(|cpu| siblings(*cpu, devices)).collect::<BTreeSet<_>>().len();
        let mut count = fast.len();
        if cores < count {
            count = cores;
            reasons.push(format!("{cores} physical {}", if cores == 1 { "core" } else { "cores" }));
            if cores == 1 {
                // If there are only two siblings, the second at least hides the memory latency of the first.
                count = 2;
                reasons.push("both of its hardware threads used".into());
            }
        }
        if limit < count {
            count = limit;
            reasons.push(format!("limited to {limit} by the quota of the control group"));
        }
        Threads { count: count.max(1), why: reasons.join(", ") }
    }

    /// The allowed processors without efficiency cores, if the system reports them: Intel by core type, Arm by relative capacity.
    fn fast_processors(allowed: &BTreeSet<usize>, devices: &Path) -> BTreeSet<usize> {
        if let Ok(list) = std::fs::read_to_string(devices.join("cpu_core/cpus")) {
            let fast: BTreeSet<usize> = parse(&list).intersection(allowed).copied().collect();
            if !fast.is_empty() {
                return fast;
            }
        }
        let capacity = |cpu: &usize| -> Option<f64> {
            let path = devices.join(format!("system/cpu/cpu{cpu}/cpu_capacity"));
            std::fs::read_to_string(path).ok()?.trim().parse().ok()
        };
        let capacities: Vec<(usize, f64)> = allowed.iter().filter_map(|cpu| Some((*cpu, capacity(cpu)?))).collect();
        let largest = capacities.iter().map(|(_, capacity)| *capacity).fold(0.0, f64::max);
        if capacities.len() < allowed.len() || largest <= 0.0 {
            return allowed.clone();
        }
        capacities.into_iter().filter(|(_, capacity)| *capacity >= SLOW * largest).map(|(cpu, _)| cpu).collect()
    }

    /// The hardware threads of a processor's core; only the processor itself if the system does not say.
    fn siblings(cpu: usize, devices: &Path) -> BTreeSet<usize> {
        let topology = devices.join(format!("system/cpu/cpu{cpu}/topology"));
        let list = ["core_cpus_list", "thread_siblings_list"]
            .into_iter()
            .find_map(|name| std::fs::read_to_string(topology.join(name)).ok());
        let found = list.map(|list| parse(&list)).unwrap_or_default();
        if found.contains(&cpu) { found } else { BTreeSet::from([cpu]) }
    }

    /// Parses a list such as `0-3,8`; anything that is not a number is ignored.
    pub fn parse(list: &str) -> BTreeSet<usize> {
        let number = |text: &str| text.trim().parse::<usize>().ok();
        list.trim()
            .split(',')
            .filter_map(|part| match part.split_once('-') {
                Some((first, last)) => Some(number(first)?..=number(last)?),
                None => number(part).map(|cpu| cpu..=cpu),
            })
            // No system has more processors; a malformed list must not fill the memory.
            .flat_map(|range| range.take(1 << 16))
            .collect()
    }
}
