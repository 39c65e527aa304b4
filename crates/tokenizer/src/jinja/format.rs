//! Python's two ways to format: `'%5.1f' % x` and `'{:>5}'.format(x)`.

use std::iter::Peekable;
use std::str::Chars;

use minijinja::value::{Kwargs, Value, ValueKind};
use minijinja::{Error, State};

use super::text::{repr_of, str_of, text_repr};
use super::{charge, float, invalid};

/// How one value is to be written.
#[derive(Clone, Debug)]
struct Spec {
    fill: char,
    /// `<`, `>`, `^` or `=`; `None` is the type's own.
    align: Option<char>,
    sign: char,
    alternate: bool,
    width: usize,
    separator: Option<char>,
    precision: Option<usize>,
    /// Conversion; a space if none was named.
    kind: char,
}

impl Default for Spec {
    fn default() -> Self {
        Self {
            fill: ' ',
            align: None,
            sign: '-',
            alternate: false,
            width: 0,
            separator: None,
            precision: None,
            kind: ' ',
        }
    }
}

/// Most digits after the point.
const PRECISION_MAX: usize = 1000;

/// `pattern % argument`.
pub(super) fn percent(state: &State, pattern: &str, argument: &Value) -> Result<String, Error> {
    let tuple = argument.is_tuple();
    let list: Vec<Value> = if tuple { argument.try_iter()?.collect() } else { vec![argument.clone()] };
    let mut values = list.into_iter();
    let (mut out, mut chars) = (String::new(), pattern.chars().peekable());
    while let Some(c) = chars.next() {
        if c != '%' {
            out.push(c);
            continue;
        }
        let named = mapping_key(&mut chars)?;
        let few = || invalid("there are fewer values than the format has places");
        let mut next = || values.next().ok_or_else(few);
        let spec = percent_spec(&mut chars, &mut next)?;
        if spec.kind == '%' {
            out.push('%');
            continue;
        }
        let value = match named {
            Some(_) if argument.kind() != ValueKind::Map => return Err(invalid("the format needs a dict")),
            Some(key) => {
                let value = argument.get_item(&Value::from(key.as_str()))?;
                Some(value).filter(|value| !value.is_undefined()).ok_or_else(few)?
            }
            None => next()?,
        };
        charge(state, spec.width)?;
        out.push_str(&percent_value(state, &value, spec)?);
    }
    // Lists and dicts may be there for their names alone.
    let unused = values.next().is_some();
    let collection = !tuple && matches!(argument.kind(), ValueKind::Map | ValueKind::Seq);
    match unused && !collection {
        true => Err(invalid("there are more values than the format has places")),
        false => Ok(out),
    }
}

fn mapping_key(chars: &mut Peekable<Chars>) -> Result<Option<String>, Error> {
    if chars.next_if_eq(&'(').is_none() {
        return Ok(None);
    }
    let mut key = String::new();
    for c in chars.by_ref() {
        if c == ')' {
            return Ok(Some(key));
        }
        key.push(c);
    }
    Err(invalid("a name in the format does not end"))
}

fn number(chars: &mut Peekable<Chars>) -> Result<Option<usize>, Error> {
    let mut digits = String::new();
    while let Some(digit) = chars.next_if(char::is_ascii_digit) {
        digits.push(digit);
    }
    if digits.is_empty() {
        return Ok(None);
    }
    digits.parse().map(Some).map_err(|_| invalid("a number in the format is too large"))
}

fn percent_spec(
    chars: &mut Peekable<Chars>,
    next: &mut impl FnMut() -> Result<Value, Error>,
) -> Result<Spec, Error> {
    let mut spec = Spec::default();
    let mut zero = false;
    while let Some(flag) = chars.next_if(|c| "#0- +".contains(*c)) {
        match flag {
            '#' => spec.alternate = true,
            '0' => zero = true,
            '-' => spec.align = Some('<'),
            '+' => spec.sign = '+',
            _ if spec.sign != '+' => spec.sign = ' ',
            _ => {}
        }
    }
    let mut starred = |chars: &mut Peekable<Chars>| match chars.next_if_eq(&'*') {
        Some(_) => super::integer(&next()?, "a width in the format").map(Some),
        None => Ok(number(chars)?.map(|n| n as i64)),
    };
    let width = starred(chars)?.unwrap_or(0);
    if width < 0 {
        spec.align = Some('<');
    }
    spec.width = usize::try_from(width.unsigned_abs()).map_err(|_| invalid("a width is too large"))?;
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = Some(starred(chars)?.unwrap_or(0).max(0) as usize);
    }
    while chars.next_if(|c| "hlL".contains(*c)).is_some() {}
    spec.kind = chars.next().ok_or_else(|| invalid("the format ends within a place"))?;
    if zero && spec.align.is_none() && "diuxXoeEfFgG".contains(spec.kind) {
        (spec.fill, spec.align) = ('0', Some('='));
    }
    spec.align = spec.align.or(Some('>'));
    Ok(spec)
}

fn percent_value(state: &State, value: &Value, mut spec: Spec) -> Result<String, Error> {
    let text = match spec.kind {
        's' => str_of(state, value)?,
        'r' => repr_of(state, value)?,
        'a' => ascii(state, value)?,
        'c' => match (value.as_str(), whole(value)) {
            (Some(text), _) if text.chars().count() == 1 => text.to_owned(),
            (None, Some(code)) => char_of(code)?,
            _ => return Err(invalid("%c takes a number or one character")),
        },
        'd' | 'i' | 'u' => {
            let number = whole(value).or_else(|| float(value).filter(|f| f.abs() < 1e38).map(|f| f as i128));
            let number = number.ok_or_else(|| invalid(format!("%d takes a number, not {}", value.kind())))?;
            spec.kind = 'd';
            return Ok(integer(number, &spec));
        }
        'x' | 'X' | 'o' => {
            let wrong = || invalid(format!("%{} takes an integer, not {}", spec.kind, value.kind()));
            return Ok(integer(whole(value).ok_or_else(wrong)?, &spec));
        }
        'e' | 'E' | 'f' | 'F' | 'g' | 'G' => {
            let wrong = || invalid(format!("%{} takes a number, not {}", spec.kind, value.kind()));
            return real(float(value).ok_or_else(wrong)?, &spec);
        }
        other => return Err(invalid(format!("%{other} is no format"))),
    };
    let text = spec.precision.map_or(text.clone(), |most| text.chars().take(most).collect());
    spec.precision = None;
    Ok(pad("", &text, &spec, '>'))
}

fn ascii(state: &State, value: &Value) -> Result<String, Error> {
    match value.as_str() {
        Some(text) => {
            let mut out = String::new();
            text_repr(&mut out, text, true);
            Ok(out)
        }
        None => {
            let text = repr_of(state, value)?;
            match text.is_ascii() {
                true => Ok(text),
                false => Err(invalid("the ASCII form of a collection with other characters")),
            }
        }
    }
}

fn char_of(code: i128) -> Result<String, Error> {
    let c = u32::try_from(code).ok().and_then(char::from_u32);
    c.map(String::from).ok_or_else(|| invalid("no character has this number"))
}

/// An integer's value; booleans are integers.
fn whole(value: &Value) -> Option<i128> {
    match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    }
}

fn sign_of(negative: bool, spec: &Spec) -> &'static str {
    match (negative, spec.sign) {
        (true, _) => "-",
        (false, '+') => "+",
        (false, ' ') => " ",
        _ => "",
    }
}

/// An integer in decimal, hexadecimal, octal or binary digits.
fn integer(number: i128, spec: &Spec) -> String {
    let magnitude = number.unsigned_abs();
    let (digits, prefix, group) = match spec.kind {
        'x' => (format!("{magnitude:x}"), "0x", 4),
        'X' => (format!("{magnitude:X}"), "0X", 4),
        'o' => (format!("{magnitude:o}"), "0o", 4),
        'b' => (format!("{magnitude:b}"), "0b", 4),
        _ => (magnitude.to_string(), "", 3),
    };
    let zeros = spec.precision.unwrap_or(0).min(PRECISION_MAX).saturating_sub(digits.len());
    let digits = "0".repeat(zeros) + &digits;
    let head = sign_of(number < 0, spec).to_owned() + if spec.alternate { prefix } else { "" };
    let digits = grouped(&digits, group, spec, head.len());
    pad(&head, &digits, spec, '>')
}

/// Digits in groups; zeros that fill a width are grouped too.
fn grouped(digits: &str, group: usize, spec: &Spec, head: usize) -> String {
    let Some(separator) = spec.separator else { return digits.to_owned() };
    let write = |digits: &str| {
        let mut out = String::new();
        for (index, digit) in digits.chars().enumerate() {
            if index > 0 && (digits.len() - index).is_multiple_of(group) {
                out.push(separator);
            }
            out.push(digit);
        }
        out
    };
    let mut digits = digits.to_owned();
    while spec.align == Some('=') && spec.fill == '0' && write(&digits).len() + head < spec.width {
        digits.insert(0, '0');
    }
    write(&digits)
}

/// A float.
fn real(number: f64, spec: &Spec) -> Result<String, Error> {
    let precision = spec.precision.unwrap_or(6);
    if precision > PRECISION_MAX {
        return Err(invalid(format!("a format asks for more than {PRECISION_MAX} digits")));
    }
    let head = sign_of(number.is_sign_negative() && !number.is_nan(), spec);
    let magnitude = number.abs();
    let mut text = match spec.kind {
        _ if number.is_nan() => "nan".to_owned(),
        _ if number.is_infinite() => "inf".to_owned(),
        'e' | 'E' => exponent(magnitude, precision),
        'f' | 'F' => format!("{magnitude:.precision$}"),
        '%' => format!("{:.precision$}%", magnitude * 100.0),
        ' ' if spec.precision.is_none() => super::float_repr(magnitude),
        ' ' => general(magnitude, precision.max(1), true),
        _ => general(magnitude, precision.max(1), spec.alternate),
    };
    if spec.kind.is_uppercase() {
        text = text.to_uppercase();
    }
    let (whole, rest) = text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()));
    let text = grouped(whole, 3, spec, head.len() + rest.len()) + rest;
    Ok(pad(head, &text, spec, '>'))
}

fn exponent(magnitude: f64, precision: usize) -> String {
    let text = format!("{magnitude:.precision$e}");
    let (digits, exponent) = text.split_once('e').unwrap_or((&text, "0"));
    let exponent: i32 = exponent.parse().unwrap_or(0);
    format!("{digits}e{}{:02}", if exponent < 0 { '-' } else { '+' }, exponent.abs())
}

/// `%g`: so many digits, with an exponent where that is shorter.
fn general(magnitude: f64, digits: usize, keep: bool) -> String {
    let scientific = exponent(magnitude, digits - 1);
    let (mantissa, power) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i64 = power.parse().unwrap_or(0);
    let trimmed = |text: &str| match text.contains('.') && !keep {
        true => text.trim_end_matches('0').trim_end_matches('.').to_owned(),
        false => text.to_owned(),
    };
    if (-4..digits as i64).contains(&exponent) {
        let decimals = (digits as i64 - 1 - exponent).max(0) as usize;
        trimmed(&format!("{magnitude:.decimals$}"))
    } else {
        format!("{}e{power}", trimmed(mantissa))
    }
}

fn pad(head: &str, body: &str, spec: &Spec, usual: char) -> String {
    let len = head.chars().count() + body.chars().count();
    let missing = spec.width.saturating_sub(len);
    let (before, between, after) = match spec.align.unwrap_or(usual) {
        '<' => (0, 0, missing),
        '^' => (missing / 2, 0, missing - missing / 2),
        '=' => (0, missing, 0),
        _ => (missing, 0, 0),
    };
    let fill = |count: usize| std::iter::repeat_n(spec.fill, count).collect::<String>();
    [&fill(before), head, &fill(between), body, &fill(after)].concat()
}

/// `pattern.format(...)`.
pub(super) fn braces(state: &State, pattern: &str, args: &[Value]) -> Result<String, Error> {
    let kwargs = args.last().filter(|last| last.is_kwargs());
    let named = kwargs.map(|kwargs| Kwargs::try_from(kwargs.clone())).transpose()?;
    let places = &args[..args.len() - usize::from(named.is_some())];
    let mut fields = Fields { state, places, named, next: Some(0) };
    fields.expand(pattern, 2)
}

struct Fields<'a, 'b, 'c> {
    state: &'a State<'b, 'c>,
    places: &'a [Value],
    named: Option<Kwargs>,
    /// The next place that is not numbered; `None` once one was.
    next: Option<usize>,
}

impl Fields<'_, '_, '_> {
    fn expand(&mut self, pattern: &str, depth: usize) -> Result<String, Error> {
        let mut out = String::new();
        let mut rest = pattern;
        while let Some(at) = rest.find(['{', '}']) {
            out.push_str(&rest[..at]);
            let (brace, tail) = rest[at..].split_at(1);
            if let Some(tail) = tail.strip_prefix(brace) {
                out.push_str(brace);
                rest = tail;
                continue;
            }
            if brace == "}" || depth == 0 {
                return Err(invalid("a brace in the format has no other"));
            }
            let end = closing(tail).ok_or_else(|| invalid("a field of the format does not end"))?;
            out.push_str(&self.field(&tail[..end], depth)?);
            rest = &tail[end + 1..];
        }
        out.push_str(rest);
        Ok(out)
    }

    fn field(&mut self, field: &str, depth: usize) -> Result<String, Error> {
        let name_end = field.find(['!', ':']).unwrap_or(field.len());
        let (name, rest) = field.split_at(name_end);
        let (conversion, rest) = match rest.strip_prefix('!') {
            Some(rest) => (rest.chars().next(), rest.get(1..).unwrap_or_default()),
            None => (None, rest),
        };
        let spec = match rest.strip_prefix(':') {
            Some(spec) => spec,
            None if rest.is_empty() => "",
            None => return Err(invalid("a field of the format has something before its colon")),
        };
        let mut value = self.value(name)?;
        let spec = self.expand(spec, depth - 1)?;
        value = match conversion {
            None => value,
            Some('s') => str_of(self.state, &value)?.into(),
            Some('r') => repr_of(self.state, &value)?.into(),
            Some('a') => ascii(self.state, &value)?.into(),
            Some(other) => return Err(invalid(format!("!{other} is no conversion"))),
        };
        formatted(self.state, &value, &spec)
    }

    fn value(&mut self, name: &str) -> Result<Value, Error> {
        let first_end = name.find(['.', '[']).unwrap_or(name.len());
        let (first, mut path) = name.split_at(first_end);
        let missing = || invalid("the format names a value that is not there");
        let mut value = if first.is_empty() {
            let place = self.next.ok_or_else(|| invalid("some places of the format are numbered"))?;
            self.next = Some(place + 1);
            self.places.get(place).cloned().ok_or_else(missing)?
        } else if let Ok(place) = first.parse::<usize>() {
            if self.next.is_some_and(|next| next > 0) {
                return Err(invalid("some places of the format are not numbered"));
            }
            self.next = None;
            self.places.get(place).cloned().ok_or_else(missing)?
        } else {
            let named = self.named.as_ref().filter(|named| named.has(first)).ok_or_else(missing)?;
            named.peek::<Value>(first)?
        };
        while !path.is_empty() {
            let (key, rest) = if let Some(tail) = path.strip_prefix('.') {
                let end = tail.find(['.', '[']).unwrap_or(tail.len());
                (Value::from(&tail[..end]), &tail[end..])
            } else {
                let tail = &path[1..];
                let end = tail.find(']').ok_or_else(|| invalid("an index of the format does not end"))?;
                let key = &tail[..end];
                (key.parse::<usize>().map_or_else(|_| Value::from(key), Value::from), &tail[end + 1..])
            };
            if key.as_str().is_some_and(|key| key.starts_with('_')) || value.is_undefined() {
                return Err(invalid("the format names a field that is not there"));
            }
            // What has no such item is undefined, as in Jinja2's sandbox.
            value = value.get_item(&key).unwrap_or_default();
            path = rest;
        }
        Ok(value)
    }
}

/// Where the brace that is open closes.
fn closing(text: &str) -> Option<usize> {
    let mut depth = 0;
    for (at, c) in text.char_indices() {
        match c {
            '{' => depth += 1,
            '}' if depth == 0 => return Some(at),
            '}' => depth -= 1,
            _ => {}
        }
    }
    None
}

/// Python's `format(value, spec)`.
fn formatted(state: &State, value: &Value, text: &str) -> Result<String, Error> {
    if text.is_empty() {
        return str_of(state, value);
    }
    let spec = spec_of(text)?;
    charge(state, spec.width)?;
    let wrong = || invalid(format!("{text:?} is no format of {}", value.kind()));
    if let Some(text) = value.as_str() {
        let plain = spec.sign == '-' && !spec.alternate && spec.separator.is_none();
        if !" s".contains(spec.kind) || !plain || spec.align == Some('=') {
            return Err(wrong());
        }
        let text: String = text.chars().take(spec.precision.unwrap_or(usize::MAX)).collect();
        return Ok(pad("", &text, &spec, '<'));
    }
    match (whole(value), spec.kind) {
        (Some(_), ' ' | 'd' | 'n' | 'x' | 'X' | 'o' | 'b' | 'c') if spec.precision.is_some() => Err(wrong()),
        (Some(_), 'x' | 'X' | 'o' | 'b' | 'n' | 'c') if spec.separator == Some(',') => Err(wrong()),
        (Some(number), ' ' | 'd' | 'n' | 'x' | 'X' | 'o' | 'b') => Ok(integer(number, &spec)),
        (Some(code), 'c') if spec.sign == '-' && !spec.alternate => Ok(pad("", &char_of(code)?, &spec, '<')),
        (_, ' ' | 'e' | 'E' | 'f' | 'F' | 'g' | 'G' | '%') => real(float(value).ok_or_else(wrong)?, &spec),
        (None, 'n') => {
            let number = float(value).ok_or_else(wrong)?;
            real(number, &Spec { kind: 'g', ..spec })
        }
        _ => Err(wrong()),
    }
}

fn spec_of(text: &str) -> Result<Spec, Error> {
    let is_align = |c: &char| "<>^=".contains(*c);
    let mut spec = Spec::default();
    let mut chars = text.chars().peekable();
    let mut ahead = text.chars();
    if let (Some(fill), Some(align)) = (ahead.next(), ahead.next().filter(is_align)) {
        (spec.fill, spec.align) = (fill, Some(align));
        chars = ahead.as_str().chars().peekable();
    } else {
        spec.align = chars.next_if(is_align);
    }
    spec.sign = chars.next_if(|c| "+- ".contains(*c)).unwrap_or('-');
    spec.alternate = chars.next_if_eq(&'#').is_some();
    if chars.next_if_eq(&'0').is_some() && spec.align.is_none() {
        (spec.fill, spec.align) = ('0', Some('='));
    }
    spec.width = number(&mut chars)?.unwrap_or(0);
    spec.separator = chars.next_if(|c| ",_".contains(*c));
    if chars.next_if_eq(&'.').is_some() {
        spec.precision = Some(number(&mut chars)?.ok_or_else(|| invalid("a format lacks its precision"))?);
    }
    spec.kind = chars.next().unwrap_or(' ');
    match chars.next() {
        Some(_) => Err(invalid(format!("{text:?} is no format"))),
        None => Ok(spec),
    }
}
