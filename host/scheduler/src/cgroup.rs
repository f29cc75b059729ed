//! Kernel groups for the threads of pools, where the process may make some.
//!
//! **Problem.** The budget parks a guest at the end of an epoch; a thread that does not come to one (a long copy of
//! memory, a host function) is seen only afterwards. **Promise.** With `cpu_enforcement = "cgroup"` every limited pool's
//! threads are in a group of their own with a CPU quota and a weight: cgroup v2 in threaded mode, or the `cpu` controller
//! of v1. Native workers serve all pools and stay outside; they are the budget's. **Cost.** A quota stops a thread
//! wherever it is, also while it holds a lock that threads of another pool wait for: so it is asked for and never the
//! default. **Rejected.** Moving the whole process: a quota would then hit validation and HTTP too.
//!
//! The v2 half is tested on a tree of plain files only.

use crate::{limits, scheduler::Enforcement};
use formwork_tasks::Pool;
use std::{
    fs, io,
    path::{Path, PathBuf},
    process,
    sync::atomic::{AtomicU64, Ordering},
};

/// What a process of ours calls its groups; the process's id, a number and the pool's name follow.
const PREFIX: &str = "formwork-";

/// Groups made by this process; a test process has several schedulers.
static GROUPS: AtomicU64 = AtomicU64::new(0);

/// Which kind of hierarchy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Version {
    V1,
    V2,
}

/// Where this process may make groups.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Hierarchy {
    version: Version,
    /// The group the process is in.
    parent: PathBuf,
}

/// A group of threads. Removed when dropped, if its threads have ended by then.
#[derive(Debug)]
pub(crate) struct Group {
    version: Version,
    folder: PathBuf,
}

impl Hierarchy {
    /// The hierarchy with a CPU controller that this process may make groups in.
    ///
    /// # Errors
    /// Why there is none, for an operator.
    pub(crate) fn find() -> Result<Self, String> {
        let read = |path: &str| fs::read_to_string(path).map_err(|error| format!("reading {path}: {error}"));
        let found = Self::locate(&read("/proc/self/cgroup")?, &read("/proc/self/mountinfo")?)?;
        found.remove_leftovers();
        found.try_out()?;
        Ok(found)
    }

    /// Reads `/proc/self/cgroup` (which groups the process is in) and `/proc/self/mountinfo` (where they are).
    fn locate(groups: &str, mounts: &str) -> Result<Self, String> {
        let group_of = |named: &dyn Fn(&str) -> bool| {
            groups.lines().find_map(|line| {
                let mut parts = line.splitn(3, ':').skip(1);
                let (controllers, path) = (parts.next()?, parts.next()?);
                named(controllers).then(|| path.to_owned())
            })
        };
        if let Some(path) = group_of(&|controllers| controllers.split(',').any(|name| name == "cpu")) {
            let parent = folder(mounts, &path, |kind, options| {
                kind == "cgroup" && options.split(',').any(|option| option == "cpu")
            });
            let parent = parent.ok_or("the cpu controller of cgroup v1 is not mounted")?;
            let version = Version::V1;
            return Ok(Self { version, parent });
        }
        let path = group_of(&str::is_empty).ok_or("no cgroup has a cpu controller")?;
        let parent = folder(mounts, &path, |kind, _| kind == "cgroup2").ok_or("cgroup v2 is not mounted")?;
        let controllers = fs::read_to_string(parent.join("cgroup.controllers")).unwrap_or_default();
        if !controllers.split_whitespace().any(|name| name == "cpu") {
            let at = parent.display();
            return Err(format!("{at}/cgroup.controllers has no cpu: it is not delegated"));
        }
        let version = Version::V2;
        Ok(Self { version, parent })
    }

    /// Whether groups can be made: a permission is only known by using it.
    fn try_out(&self) -> Result<(), String> {
        self.group("try").map(drop).map_err(|error| {
            let at = self.parent.display();
            format!("{at} is not delegated to this process: {error}")
        })
    }

    /// The group for a pool's threads.
    pub(crate) fn pool(&self, pool: Pool) -> io::Result<Group> {
        self.group(pool.as_str())
    }

    fn group(&self, name: &str) -> io::Result<Group> {
        let number = GROUPS.fetch_add(1, Ordering::Relaxed);
        let folder = self.parent.join(format!("{PREFIX}{}-{number}-{name}", process::id()));
        fs::create_dir(&folder)?;
        let group = Group {
            version: self.version,
            folder,
        };
        if self.version == Version::V2 {
            // Threads of one process may only be spread over groups of one threaded subtree.
            write(&group.folder.join("cgroup.type"), "threaded")?;
            write(&self.parent.join("cgroup.subtree_control"), "+cpu")?;
        }
        group.set(None, limits::WEIGHT_DEFAULT)?;
        Ok(group)
    }

    /// Groups of processes that are gone.
    fn remove_leftovers(&self) {
        for entry in fs::read_dir(&self.parent).into_iter().flatten().flatten() {
            let name = entry.file_name().to_string_lossy().into_owned();
            let id = name.strip_prefix(PREFIX).and_then(|rest| rest.split('-').next());
            if let Some(id) = id.and_then(|id| id.parse::<u32>().ok())
                && !Path::new("/proc").join(id.to_string()).exists()
            {
                // Fails while threads are in it; then it is not a leftover.
                let _ = fs::remove_dir(entry.path());
            }
        }
    }
}

impl Group {
    /// Puts a thread of this process into the group.
    pub(crate) fn add_thread(&self, thread: i32) -> io::Result<()> {
        let file = match self.version {
            Version::V1 => "tasks",
            Version::V2 => "cgroup.threads",
        };
        write(&self.folder.join(file), &thread.to_string())
    }

    /// Sets the quota, in CPUs, and the weight, as [`crate::PoolOptions::weight`] has it.
    pub(crate) fn set(&self, cpus: Option<f64>, weight: u32) -> io::Result<()> {
        let period = limits::CGROUP_PERIOD.as_micros();
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "checked options: some CPUs, times a tenth of a second in microseconds"
        )]
        let quota = cpus.map(|cpus| {
            let quota = (cpus * limits::CGROUP_PERIOD.as_secs_f64() * 1e6).round() as u64;
            quota.max(limits::CGROUP_QUOTA_LEAST_US)
        });
        match self.version {
            Version::V1 => {
                write(&self.folder.join("cpu.cfs_period_us"), &period.to_string())?;
                let quota = quota.map_or("-1".to_owned(), |quota| quota.to_string());
                write(&self.folder.join("cpu.cfs_quota_us"), &quota)?;
                // The kernel's usual share, 1,024, for the usual weight.
                let shares = u64::from(weight) * 1_024 / u64::from(limits::WEIGHT_DEFAULT);
                write(&self.folder.join("cpu.shares"), &shares.max(2).to_string())
            }
            Version::V2 => {
                let quota = quota.map_or("max".to_owned(), |quota| quota.to_string());
                write(&self.folder.join("cpu.max"), &format!("{quota} {period}"))?;
                let weight = weight.clamp(1, 10_000);
                write(&self.folder.join("cpu.weight"), &weight.to_string())
            }
        }
    }

    pub(crate) const fn enforcement(&self) -> Enforcement {
        match self.version {
            Version::V1 => Enforcement::CgroupV1,
            Version::V2 => Enforcement::CgroupV2,
        }
    }

    /// In how many periods the kernel stopped threads because the quota was used up.
    pub(crate) fn throttled(&self) -> Option<u64> {
        let stat = fs::read_to_string(self.folder.join("cpu.stat")).ok()?;
        let line = stat.lines().find_map(|line| line.strip_prefix("nr_throttled "))?;
        line.trim().parse().ok()
    }
}

impl Drop for Group {
    fn drop(&mut self) {
        // A thread that has not quite ended keeps it; the next start removes it.
        if let Err(error) = fs::remove_dir(&self.folder) {
            tracing::debug!(group = %self.folder.display(), %error, "a cgroup stays until the next start");
        }
    }
}

/// Writes to a file that must exist: where a controller is missing its files are, too.
fn write(path: &Path, text: &str) -> io::Result<()> {
    let wrong =
        |error: io::Error| io::Error::new(error.kind(), format!("writing {text} to {}: {error}", path.display()));
    let file = fs::OpenOptions::new().write(true).truncate(true).open(path);
    let mut file = file.map_err(wrong)?;
    io::Write::write_all(&mut file, text.as_bytes()).map_err(wrong)
}

/// The folder of a group, by the mount that `wanted` picks by its kind and its file system's options.
fn folder(mounts: &str, group: &str, wanted: impl Fn(&str, &str) -> bool) -> Option<PathBuf> {
    mounts.lines().find_map(|line| {
        // `32 31 0:29 ROOT MOUNT OPTIONS [FIELDS] - KIND SOURCE FILE-SYSTEM-OPTIONS`
        let (mount, system) = line.split_once(" - ")?;
        let mut system = system.split(' ');
        let (kind, options) = (system.next()?, system.nth(1)?);
        let mut fields = mount.split(' ').skip(3);
        let (root, point) = (fields.next()?, fields.next()?);
        if !wanted(kind, options) {
            return None;
        }
        // Inside a container the mount may begin at the container's own group.
        let below = group.strip_prefix(root).unwrap_or(group).trim_start_matches('/');
        Some(Path::new(point).join(below))
    })
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use std::fmt::Write as _;

    /// A folder with the files that the kernel would make.
    fn tree(files: &[&str]) -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for file in files {
            fs::write(folder.path().join(file), "").unwrap();
        }
        folder
    }

    fn content(folder: &Path, file: &str) -> String {
        fs::read_to_string(folder.join(file)).unwrap()
    }

    #[test]
    fn the_process_s_group_is_found_through_the_mounts() {
        let groups = "9:name=systemd:/\n2:cpuacct:/x\n1:cpu,cpuset:/docker/abc\n0::/\n";
        let mounts = "31 23 0:28 / /sys/fs/cgroup rw - tmpfs tmpfs rw,mode=755\n\
            33 31 0:30 / /sys/fs/cgroup/cpuacct rw,relatime - cgroup cgroup rw,cpuacct\n\
            32 31 0:29 /docker/abc /sys/fs/cgroup/cpu rw,relatime shared:9 - cgroup cgroup rw,cpu,cpuset\n";
        let found = Hierarchy::locate(groups, mounts).unwrap();
        assert_eq!(found.version, Version::V1);
        assert_eq!(found.parent, Path::new("/sys/fs/cgroup/cpu/"));
        let whole = mounts.replace("/docker/abc /sys", "/ /sys");
        let found = Hierarchy::locate(groups, &whole).unwrap();
        assert_eq!(found.parent, Path::new("/sys/fs/cgroup/cpu/docker/abc"));
    }

    #[test]
    fn version_2_needs_the_cpu_controller() {
        let folder = tree(&["cgroup.controllers"]);
        let mut mounts = String::new();
        let at = folder.path().display();
        writeln!(mounts, "41 31 0:38 / {at} rw,relatime - cgroup2 cgroup2 rw").unwrap();
        let missing = Hierarchy::locate("0::/\n", &mounts).unwrap_err();
        assert!(missing.contains("not delegated"), "{missing}");
        fs::write(folder.path().join("cgroup.controllers"), "cpuset cpu io\n").unwrap();
        let found = Hierarchy::locate("0::/\n", &mounts).unwrap();
        assert_eq!(found.version, Version::V2);
    }

    #[test]
    fn version_2_is_written_in_its_words() {
        let folder = tree(&["cpu.max", "cpu.weight", "cgroup.threads"]);
        fs::write(folder.path().join("cpu.stat"), "nr_periods 9\nnr_throttled 4\n").unwrap();
        let group = Group {
            version: Version::V2,
            folder: folder.path().to_owned(),
        };
        group.set(Some(0.5), 30).unwrap();
        group.add_thread(123).unwrap();
        assert_eq!(content(folder.path(), "cpu.max"), "50000 100000");
        assert_eq!(content(folder.path(), "cpu.weight"), "30");
        assert_eq!(content(folder.path(), "cgroup.threads"), "123");
        assert_eq!(group.throttled(), Some(4));
        group.set(None, 100).unwrap();
        assert_eq!(content(folder.path(), "cpu.max"), "max 100000");
    }

    #[test]
    fn a_group_without_its_files_is_an_error_that_names_them() {
        let parent = tree(&[]);
        let hierarchy = Hierarchy {
            version: Version::V2,
            parent: parent.path().to_owned(),
        };
        let error = hierarchy.try_out().unwrap_err();
        assert!(error.contains("cgroup.type"), "{error}");
    }

    /// Real groups: skipped where the process may not make any, as on most desktops.
    #[test]
    fn a_thread_in_a_real_group_is_throttled() {
        let Ok(hierarchy) = Hierarchy::find() else {
            return;
        };
        let group = hierarchy.group("test").unwrap();
        group.set(Some(0.1), 100).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                group.add_thread(nix::unistd::gettid().as_raw()).unwrap();
                let began = std::time::Instant::now();
                // The kernel stops it in every period until somebody has seen so.
                while group.throttled().unwrap() == 0 {
                    assert!(began.elapsed() < std::time::Duration::from_secs(30), "never throttled");
                }
            });
        });
    }
}
