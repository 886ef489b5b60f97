//! What the operating system says about this process, from `/proc/self`.

/// Figures with the names that every Prometheus client uses.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub(super) struct ProcessFigures {
    pub(super) cpu_seconds: f64,
    pub(super) resident_bytes: u64,
    pub(super) virtual_bytes: u64,
    pub(super) open_fds: u64,
    pub(super) max_fds: u64,
    pub(super) threads: u64,
    pub(super) start_seconds: f64,
}

/// Reads them; what cannot be read is 0.
pub(super) fn read() -> ProcessFigures {
    let stat = std::fs::read_to_string("/proc/self/stat").unwrap_or_default();
    let boot = std::fs::read_to_string("/proc/stat").unwrap_or_default();
    let mut figures = from_stat(&stat, &boot);
    figures.open_fds = std::fs::read_dir("/proc/self/fd").map_or(0, |entries| entries.count() as u64);
    let limit = rustix::process::getrlimit(rustix::process::Resource::Nofile);
    figures.max_fds = limit.current.unwrap_or(u64::MAX);
    figures
}

fn from_stat(stat: &str, boot: &str) -> ProcessFigures {
    let ticks_per_second = rustix::param::clock_ticks_per_second() as f64;
    let page_bytes = rustix::param::page_size() as u64;
    // The name of the program, in parentheses, may hold anything; the numbers are behind it.
    let fields: Vec<&str> = stat.rsplit(')').next().unwrap_or_default().split_whitespace().collect();
    // Numbered as in proc(5), where the first field behind the name is 3.
    let field = |number: usize| fields.get(number - 3).and_then(|text| text.parse::<u64>().ok()).unwrap_or(0);
    let boot_seconds = boot
        .lines()
        .find_map(|line| line.strip_prefix("btime "))
        .and_then(|text| text.trim().parse::<u64>().ok())
        .unwrap_or(0);
    ProcessFigures {
        cpu_seconds: (field(14) + field(15)) as f64 / ticks_per_second,
        threads: field(20),
        start_seconds: boot_seconds as f64 + field(22) as f64 / ticks_per_second,
        virtual_bytes: field(23),
        resident_bytes: field(24) * page_bytes,
        ..ProcessFigures::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_memory_threads_and_files() {
        let figures = read();
        assert!(figures.resident_bytes > 100_000, "{figures:?}");
        assert!(
            figures.threads >= 1 && figures.open_fds >= 3 && figures.max_fds >= figures.open_fds,
            "{figures:?}"
        );
        assert!(figures.start_seconds > 1.5e9, "{figures:?}");
    }
}
