//! The date and time for `strftime_now`, in UTC.

use std::format;
use std::string::String;
use std::time::{SystemTime, UNIX_EPOCH};

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
const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];

/// A moment, as a calendar and a clock show it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Moment {
    year: u64,
    /// 1 to 12.
    month: u64,
    /// 1 to 31.
    day: u64,
    /// 0 is Sunday.
    weekday: u64,
    /// 0 to 86399.
    second: u64,
}

/// The present. A clock before 1970 shows 1970.
pub(super) fn now() -> Moment {
    Moment::from_unix(SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs()))
}

impl Moment {
    fn from_unix(seconds: u64) -> Moment {
        let days = seconds / 86_400;
        let mut moment =
            Moment { year: 1970, month: 1, day: days % 146_097, weekday: (days + 4) % 7, second: seconds % 86_400 };
        // The calendar repeats every 400 years, of 146097 days.
        moment.year += 400 * (days / 146_097);
        while moment.day >= days_of_year(moment.year) {
            moment.day -= days_of_year(moment.year);
            moment.year += 1;
        }
        while moment.day >= days_of_month(moment.year, moment.month) {
            moment.day -= days_of_month(moment.year, moment.month);
            moment.month += 1;
        }
        moment.day += 1;
        moment
    }

    /// C's `strftime` for the conversions that name a date or a time; others stay as they are.
    pub(super) fn format(&self, format: &str) -> String {
        let (hour, minute, second) = (self.second / 3600, self.second / 60 % 60, self.second % 60);
        let name = |names: &[&'static str], at: u64| names.get(at as usize).copied().unwrap_or_default();
        let (month, weekday) = (name(&MONTHS, self.month - 1), name(&DAYS, self.weekday));
        let mut text = String::new();
        let mut chars = format.chars();
        while let Some(c) = chars.next() {
            if c != '%' {
                text.push(c);
                continue;
            }
            let conversion = match chars.next() {
                Some('Y') => format!("{}", self.year),
                Some('y') => format!("{:02}", self.year % 100),
                Some('m') => format!("{:02}", self.month),
                Some('d') => format!("{:02}", self.day),
                Some('e') => format!("{:2}", self.day),
                Some('B') => String::from(month),
                Some('b') => String::from(&month[..3]),
                Some('A') => String::from(weekday),
                Some('a') => String::from(&weekday[..3]),
                Some('H') => format!("{hour:02}"),
                Some('I') => format!("{:02}", (hour + 11) % 12 + 1),
                Some('p') => String::from(if hour < 12 { "AM" } else { "PM" }),
                Some('M') => format!("{minute:02}"),
                Some('S') => format!("{second:02}"),
                Some('F') => format!("{}-{:02}-{:02}", self.year, self.month, self.day),
                Some('T') => format!("{hour:02}:{minute:02}:{second:02}"),
                Some('%') => String::from("%"),
                Some(other) => format!("%{other}"),
                None => String::from("%"),
            };
            text.push_str(&conversion);
        }
        text
    }
}

fn is_leap(year: u64) -> bool {
    year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400))
}

fn days_of_year(year: u64) -> u64 {
    365 + u64::from(is_leap(year))
}

fn days_of_month(year: u64, month: u64) -> u64 {
    match month {
        2 => 28 + u64::from(is_leap(year)),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Dates by GNU `date -u -d @SECONDS`.
    #[test]
    fn dates() {
        let all = "%Y-%m-%d %H:%M:%S %a %A %b %B %y %e %I %p %F %T %% %Q %";
        let samples = [
            (0, "1970-01-01 00:00:00 Thu Thursday Jan January 70  1 12 AM 1970-01-01 00:00:00 % %Q %"),
            (951_782_400, "2000-02-29 00:00:00 Tue Tuesday Feb February 00 29 12 AM 2000-02-29 00:00:00 % %Q %"),
            (1_709_251_199, "2024-02-29 23:59:59 Thu Thursday Feb February 24 29 11 PM 2024-02-29 23:59:59 % %Q %"),
            (1_798_761_599, "2026-12-31 23:59:59 Thu Thursday Dec December 26 31 11 PM 2026-12-31 23:59:59 % %Q %"),
            (4_107_542_400, "2100-03-01 00:00:00 Mon Monday Mar March 00  1 12 AM 2100-03-01 00:00:00 % %Q %"),
        ];
        for (seconds, expected) in samples {
            assert_eq!(Moment::from_unix(seconds).format(all), expected);
        }
    }

    #[test]
    fn a_clock_gone_mad_still_shows_something() {
        assert!(Moment::from_unix(u64::MAX).format("%d %B %Y").len() > 10);
    }
}
