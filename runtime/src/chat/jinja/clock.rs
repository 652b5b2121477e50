//! Dates and times as C's `strftime` writes them, in universal time.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::date::civil;

/// The present moment.
pub fn now(format: &str) -> String {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    strftime(since.map_or(0, |time| time.as_secs()), format)
}

/// The parts that templates use.
fn strftime(seconds: u64, format: &str) -> String {
    const DAYS: [&str; 7] = [
        "Thursday",
        "Friday",
        "Saturday",
        "Sunday",
        "Monday",
        "Tuesday",
        "Wednesday",
    ];
    const MONTHS: [&str; 12] = [
        "January",
        "February",
        "March",
        "April",
        "May",
        "June",
        "July",
        "August",
        "September",
        "October",
        "November",
        "December",
    ];
    let days = seconds / 86_400;
    let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
    let (year, month, day) = civil(days);
    let weekday = DAYS[(days % 7) as usize];
    let month_name = MONTHS[month as usize - 1];
    let mut out = String::new();
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        match chars.next() {
            Some('Y') => out.push_str(&year.to_string()),
            Some('y') => out.push_str(&format!("{:02}", year % 100)),
            Some('m') => out.push_str(&format!("{month:02}")),
            Some('d') => out.push_str(&format!("{day:02}")),
            Some('e') => out.push_str(&format!("{day:2}")),
            Some('B') => out.push_str(month_name),
            Some('b' | 'h') => out.push_str(&month_name[..3]),
            Some('A') => out.push_str(weekday),
            Some('a') => out.push_str(&weekday[..3]),
            Some('H') => out.push_str(&format!("{hour:02}")),
            Some('I') => out.push_str(&format!("{:02}", (hour + 11) % 12 + 1)),
            Some('p') => out.push_str(if hour < 12 { "AM" } else { "PM" }),
            Some('M') => out.push_str(&format!("{minute:02}")),
            Some('S') => out.push_str(&format!("{second:02}")),
            Some('F') => out.push_str(&format!("{year}-{month:02}-{day:02}")),
            Some('T') => out.push_str(&format!("{hour:02}:{minute:02}:{second:02}")),
            Some('%') => out.push('%'),
            Some(other) => out.extend(['%', other]),
            None => out.push('%'),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_are_right_around_leap_days() {
        let date = |seconds| strftime(seconds, "%Y-%m-%d %a %d %b %Y %H:%M:%S %I %p %y %e %B %%");
        assert_eq!(
            date(0),
            "1970-01-01 Thu 01 Jan 1970 00:00:00 12 AM 70  1 January %"
        );
        assert_eq!(
            date(951_782_400),
            "2000-02-29 Tue 29 Feb 2000 00:00:00 12 AM 00 29 February %"
        );
        assert_eq!(
            date(1_709_251_199),
            "2024-02-29 Thu 29 Feb 2024 23:59:59 11 PM 24 29 February %"
        );
        assert_eq!(
            date(1_709_251_200),
            "2024-03-01 Fri 01 Mar 2024 00:00:00 12 AM 24  1 March %"
        );
        assert_eq!(
            date(4_102_444_800),
            "2100-01-01 Fri 01 Jan 2100 00:00:00 12 AM 00  1 January %"
        );
        // Every day of four centuries follows the day before it.
        let mut before = civil(0);
        for days in 1..146_097 {
            let today = civil(days);
            let next = today == (before.0, before.1, before.2 + 1)
                || today == (before.0, before.1 + 1, 1)
                || today == (before.0 + 1, 1, 1);
            assert!(
                next && today.1 <= 12 && today.2 <= 31,
                "{before:?} then {today:?}"
            );
            before = today;
        }
        assert_eq!(before, (2369, 12, 31));
    }
}
