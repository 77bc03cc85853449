//! How much memory there is to be had.

use std::fs;
use std::path::{Path, PathBuf};

/// Bytes that this process could still take: what the system has available, or less where a
/// control group limits it. `None` where nobody tells.
pub(crate) fn available_bytes() -> Option<u64> {
    [system_available(), group_available()]
        .into_iter()
        .flatten()
        .min()
}

fn system_available() -> Option<u64> {
    let text = fs::read_to_string("/proc/meminfo").ok()?;
    let line = text
        .lines()
        .find_map(|line| line.strip_prefix("MemAvailable:"))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The tightest of this process's control groups, version 2 or 1.
fn group_available() -> Option<u64> {
    let groups = fs::read_to_string("/proc/self/cgroup").ok()?;
    let mut tightest = None;
    for line in groups.lines() {
        let mut fields = line.splitn(3, ':').skip(1);
        let (Some(controllers), Some(path)) = (fields.next(), fields.next()) else {
            continue;
        };
        let (root, limit, usage) = if controllers.is_empty() {
            ("/sys/fs/cgroup", "memory.max", "memory.current")
        } else if controllers.split(',').any(|name| name == "memory") {
            let limit = "memory.limit_in_bytes";
            ("/sys/fs/cgroup/memory", limit, "memory.usage_in_bytes")
        } else {
            continue;
        };
        let root = Path::new(root);
        let mut group: PathBuf = root.join(path.trim_start_matches('/'));
        // A limit on a group is a limit on those within it.
        while group.starts_with(root) {
            let read = |name| -> Option<u64> {
                fs::read_to_string(group.join(name))
                    .ok()?
                    .trim()
                    .parse()
                    .ok()
            };
            if let (Some(limit), Some(usage)) = (read(limit), read(usage)) {
                let left = limit.saturating_sub(usage);
                tightest = Some(tightest.map_or(left, |tightest: u64| tightest.min(left)));
            }
            if !group.pop() {
                break;
            }
        }
    }
    tightest
}
