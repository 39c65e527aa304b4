//! `strftime` for templates: the date, without a time library.

use std::fmt::Write;

const DAYS: [&str; 7] = ["Sunday", "Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday"];
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
const DAY_S: i64 = 86_400;

/// A moment in the proleptic Gregorian calendar.
struct Civil {
    year: i64,
    month: usize, // 1..=12
    day: i64,     // 1..=31
    day_of_year: i64,
    weekday: usize, // 0 = Sunday
    second_of_day: i64,
}

impl Civil {
    /// Year and week of ISO 8601: a week belongs to the year that its Thursday is in.
    fn iso_week(&self) -> (i64, i64) {
        let thursday = self.day_of_year + 3 - (self.weekday as i64 + 6) % 7;
        let leap = |year: i64| year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
        let days = |year: i64| 365 + i64::from(leap(year));
        match thursday {
            ..=0 => (self.year - 1, (thursday + days(self.year - 1) - 1) / 7 + 1),
            day if day > days(self.year) => (self.year + 1, 1),
            day => (self.year, (day - 1) / 7 + 1),
        }
    }
}

/// Date of a number of seconds since 1970. The year is counted from March, so that the leap day
/// comes last, in cycles of 400 years (146,097 days).
fn civil(seconds: i64) -> Civil {
    let (days, second_of_day) = (seconds.div_euclid(DAY_S), seconds.rem_euclid(DAY_S));
    let from_march_0000 = days + 719_468;
    let (cycle, day) = (from_march_0000.div_euclid(146_097), from_march_0000.rem_euclid(146_097));
    let year = (day - day / 1460 + day / 36_524 - day / 146_096) / 365;
    let day_from_march = day - (365 * year + year / 4 - year / 100);
    let month_from_march = (5 * day_from_march + 2) / 153;
    let day_of_month = day_from_march - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = year + cycle * 400 + i64::from(month <= 2);
    let leap = year % 4 == 0 && (year % 100 != 0 || year % 400 == 0);
    // March 1st is day 60 or 61 of the year; January and February are the end of the March year.
    let day_of_year = match month {
        1 | 2 => day_from_march - 305,
        _ => day_from_march + 60 + i64::from(leap),
    };
    Civil {
        year,
        month: month as usize,
        day: day_of_month,
        day_of_year,
        weekday: (days + 4).rem_euclid(7) as usize,
        second_of_day,
    }
}

/// Formats `seconds` since 1970 as C's `strftime` does in the C locale, for the usual directives.
/// A `-` after the `%` drops the padding. An unknown directive stays as it is.
pub(crate) fn strftime(format: &str, seconds: i64) -> String {
    // Years beyond the range of four digits are no use to a prompt, and keep the sums small.
    let time = civil(seconds.clamp(-62_135_596_800, 253_402_300_799));
    let mut out = String::with_capacity(format.len() * 2);
    let mut chars = format.chars();
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let mut directive = chars.next();
        let padded = directive != Some('-');
        if !padded {
            directive = chars.next();
        }
        match directive {
            Some(directive) => write_directive(&mut out, directive, padded, &time, seconds),
            None => out.push_str(if padded { "%" } else { "%-" }),
        }
    }
    out
}

fn write_directive(out: &mut String, directive: char, padded: bool, time: &Civil, seconds: i64) {
    let (hour, minute, second) =
        (time.second_of_day / 3600, time.second_of_day / 60 % 60, time.second_of_day % 60);
    let hour_12 = (hour + 11) % 12 + 1;
    // (value, width, padding character)
    let number = match directive {
        'Y' => (time.year, 4, '0'),
        'y' => (time.year.rem_euclid(100), 2, '0'),
        'm' => (time.month as i64, 2, '0'),
        'd' => (time.day, 2, '0'),
        'e' => (time.day, 2, ' '),
        'j' => (time.day_of_year, 3, '0'),
        'H' => (hour, 2, '0'),
        'I' => (hour_12, 2, '0'),
        'M' => (minute, 2, '0'),
        'S' => (second, 2, '0'),
        'f' => (0, 6, '0'),
        'u' => ((time.weekday as i64 + 6) % 7 + 1, 1, '0'),
        'w' => (time.weekday as i64, 1, '0'),
        // Weeks of the year from its first Sunday, from its first Monday, and as ISO 8601 has them.
        'U' => ((time.day_of_year + 6 - time.weekday as i64) / 7, 2, '0'),
        'W' => ((time.day_of_year + 6 - (time.weekday as i64 + 6) % 7) / 7, 2, '0'),
        'V' => (time.iso_week().1, 2, '0'),
        'G' => (time.iso_week().0, 4, '0'),
        's' => (seconds, 1, '0'),
        _ => {
            write_text(out, directive, padded, hour, time, seconds);
            return;
        }
    };
    let (value, width, pad) = number;
    let digits = value.to_string();
    if padded {
        out.extend(std::iter::repeat_n(pad, usize::saturating_sub(width, digits.len())));
    }
    out.push_str(&digits);
}

fn write_text(out: &mut String, directive: char, padded: bool, hour: i64, time: &Civil, seconds: i64) {
    let (day, month) = (DAYS[time.weekday], MONTHS[time.month - 1]);
    match directive {
        'A' => out.push_str(day),
        'a' => out.push_str(&day[..3]),
        'B' => out.push_str(month),
        'b' | 'h' => out.push_str(&month[..3]),
        'p' => out.push_str(if hour < 12 { "AM" } else { "PM" }),
        'F' => out.push_str(&strftime("%Y-%m-%d", seconds)),
        'T' => out.push_str(&strftime("%H:%M:%S", seconds)),
        'R' => out.push_str(&strftime("%H:%M", seconds)),
        'D' | 'x' => out.push_str(&strftime("%m/%d/%y", seconds)),
        'X' => out.push_str(&strftime("%H:%M:%S", seconds)),
        'c' => out.push_str(&strftime("%a %b %e %H:%M:%S %Y", seconds)),
        'n' => out.push('\n'),
        't' => out.push('\t'),
        // Python's naive `datetime` has no zone and writes nothing.
        'Z' | 'z' => {}
        '%' => out.push('%'),
        other => {
            // Writing to a string cannot fail.
            let _ = write!(out, "%{}{other}", if padded { "" } else { "-" });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn dates_of_known_moments() {
        for (seconds, expected) in [
            (0, "1970-01-01 00:00:00 Thursday 001"),
            (951_782_400, "2000-02-29 00:00:00 Tuesday 060"),
            (1_709_251_199, "2024-02-29 23:59:59 Thursday 060"),
            (1_735_689_599, "2024-12-31 23:59:59 Tuesday 366"),
            (1_767_225_600, "2026-01-01 00:00:00 Thursday 001"),
            (-1, "1969-12-31 23:59:59 Wednesday 365"),
            (4_107_542_400, "2100-03-01 00:00:00 Monday 060"),
        ] {
            assert_eq!(strftime("%Y-%m-%d %H:%M:%S %A %j", seconds), expected);
        }
    }

    #[test]
    fn directives() {
        let seconds = 1_754_028_305; // 2025-08-01 06:05:05, a Friday
        for (format, expected) in [
            ("%d %b %Y", "01 Aug 2025"),
            ("%-d %B %y, %a", "1 August 25, Fri"),
            ("%-I:%M %p|%e|%F %T|%u%w", "6:05 AM| 1|2025-08-01 06:05:05|55"),
            ("100%% %Q %-Q %", "100% %Q %-Q %"),
            ("%U %W %V %G|%Z%z", "30 30 31 2025|"),
        ] {
            assert_eq!(strftime(format, seconds), expected);
        }
        strftime("%Y %c", i64::MIN);
        strftime("%Y %c", i64::MAX);
    }
}
