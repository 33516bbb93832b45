//! CPU seconds of a process, from `/proc/PID/stat`.

/// Clock ticks a second in `/proc/PID/stat`: USER_HZ, which is 100 on every Linux architecture that Rust supports.
const TICKS_PER_SECOND: f64 = 100.0;

/// User and system CPU seconds that this process has used so far, or `None` where there is no `/proc`.
pub fn own_seconds() -> Option<f64> {
    parse_stat(&std::fs::read_to_string("/proc/self/stat").ok()?)
}

/// `utime + stime` (fields 14 and 15 of proc_pid_stat(5)) in seconds.
fn parse_stat(stat: &str) -> Option<f64> {
    // The command name (field 2) is in parentheses and may itself hold spaces and parentheses.
    let after_name = stat.rsplit_once(')')?.1;
    let mut fields = after_name.split_ascii_whitespace().skip(11);
    let user: f64 = fields.next()?.parse().ok()?;
    let system: f64 = fields.next()?.parse().ok()?;
    Some((user + system) / TICKS_PER_SECOND)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_command_name_with_spaces_and_parentheses_does_not_shift_the_fields() {
        let stat = "42 (a b) c) S 1 42 42 0 -1 4194560 100 0 0 0 150 50 0 0 20 0 1 0 100 0 0";
        assert_eq!(parse_stat(stat), Some(2.0));
    }

    #[test]
    fn a_truncated_line_gives_nothing() {
        assert_eq!(parse_stat("42 (a) S 1 2"), None);
    }
}
