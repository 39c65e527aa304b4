//! Jinja2's filters of texts and numbers.

use minijinja::value::{Value, ValueKind};
use minijinja::{Error, State};

use super::methods::{capitalize, lines, replace, stripped};
use super::text::{escaped, str_of, text_of};
use super::{Callable, bind, charge, float, format, integer, invalid, is_true, items, text_value, width};

pub(super) const ALL: [(&str, Callable); 28] = [
    ("abs", abs),
    ("attr", attr),
    ("capitalize", |state, args| mapped(state, args, capitalize)),
    ("center", center),
    ("d", default),
    ("default", default),
    ("e", escape),
    ("escape", escape),
    ("filesizeformat", file_size),
    ("float", to_float),
    ("forceescape", escape_again),
    ("format", percent),
    ("indent", indent),
    ("int", to_int),
    ("lower", |state, args| mapped(state, args, str::to_lowercase)),
    ("replace", replaced),
    ("round", round),
    ("safe", safe),
    ("string", string),
    ("striptags", strip_tags),
    ("title", |state, args| mapped(state, args, title)),
    ("tojson", super::python::tojson),
    ("trim", trim),
    ("truncate", truncate),
    ("upper", |state, args| mapped(state, args, str::to_uppercase)),
    ("urlencode", url_encode),
    ("wordcount", word_count),
    ("wordwrap", word_wrap),
];

/// The text of the first argument, through a function.
fn mapped(state: &mut State, args: Vec<Value>, f: impl Fn(&str) -> String) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    let text = f(&text_of(state, &value)?);
    charge(state, text.len())?;
    Ok(if value.is_safe() { Value::from_safe_string(text) } else { text.into() })
}

fn abs(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    if value.is_number() && !value.is_integer() {
        return Ok(f64::try_from(value)?.abs().into());
    }
    Ok(integer(&value, "what abs takes")?.saturating_abs().into())
}

/// An attribute, which items of a dict are not.
fn attr(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, name] = bind(args, ["value", "name"], 2)?;
    let (value, name) = (value.unwrap_or_default(), name.unwrap_or_default());
    let namespace = value.kind() == ValueKind::Map && !super::python::is_mapping(&value);
    match name.as_str() {
        Some(name) if name.starts_with('_') => Err(invalid(format!("access to {name} is unsafe"))),
        Some(_) if namespace || value.kind() == ValueKind::Plain => value.get_item(&name),
        _ => Err(invalid("the filter attr gives no methods, and items are no attributes")),
    }
}

fn center(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, size] = bind(args, ["value", "width"], 1)?;
    let text = Value::from(str_of(state, &value.unwrap_or_default())?);
    text.call_method(state, "center", &[size.unwrap_or_else(|| Value::from(80))])
}

fn default(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, default, boolean] = bind(args, ["value", "default_value", "boolean"], 1)?;
    let value = value.unwrap_or_default();
    let missing = value.is_undefined() || is_true(boolean.as_ref()) && !value.is_true();
    Ok(if missing { default.unwrap_or_else(|| Value::from("")) } else { value })
}

fn escape(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    if args.first().is_some_and(Value::is_safe) {
        return Ok(args[0].clone());
    }
    escape_again(state, args)
}

fn escape_again(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let text = escaped(&text_of(state, &value.unwrap_or_default())?);
    charge(state, text.len())?;
    Ok(Value::from_safe_string(text))
}

fn safe(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    Ok(Value::from_safe_string(str_of(state, &value.unwrap_or_default())?))
}

fn string(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    match value.as_str() {
        Some(_) => Ok(value),
        None => text_value(state, str_of(state, &value)?),
    }
}

fn file_size(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, binary] = bind(args, ["value", "binary"], 1)?;
    let value = value.unwrap_or_default();
    let parsed = value.as_str().and_then(|text| text.trim().parse().ok());
    let bytes = float(&value).or(parsed).ok_or_else(|| invalid("filesizeformat takes a number"))?;
    let binary = is_true(binary.as_ref());
    let (base, units) = match binary {
        true => (1024.0, ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB", "ZiB", "YiB"]),
        false => (1000.0, ["kB", "MB", "GB", "TB", "PB", "EB", "ZB", "YB"]),
    };
    if bytes == 1.0 {
        return Ok("1 Byte".into());
    }
    if bytes < base {
        return Ok(format!("{} Bytes", bytes.trunc() as i64).into());
    }
    let (mut value, mut unit) = (bytes / base, 0);
    while value >= base && unit + 1 < units.len() {
        value /= base;
        unit += 1;
    }
    Ok(format!("{value:.1} {}", units[unit]).into())
}

/// A number of Python's syntax, with underscores between digits, of a base from 2 to 36.
fn parse_int(text: &str, base: u32) -> Option<i128> {
    let text = text.trim();
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefix = [("0x", 16), ("0o", 8), ("0b", 2)];
    let lower = digits.get(..2).map(str::to_ascii_lowercase);
    let own = prefix.iter().find(|(prefix, own)| *own == base && lower.as_deref() == Some(*prefix));
    let digits = own.map_or(digits, |_| digits[2..].strip_prefix('_').unwrap_or(&digits[2..]));
    let between = !digits.starts_with('_') && !digits.ends_with('_') && !digits.contains("__");
    if !between || digits.is_empty() || !digits.chars().all(|c| c == '_' || c.is_digit(base)) {
        return None;
    }
    let number = i128::from_str_radix(&digits.replace('_', ""), base).ok()?;
    Some(if negative { -number } else { number })
}

fn parse_float(text: &str) -> Option<f64> {
    let text = text.trim();
    let between = text.split('_').all(|part| !part.is_empty()) || !text.contains('_');
    let digits = text.trim_start_matches(['+', '-']);
    let named = digits.starts_with(|c: char| c.is_ascii_alphabetic());
    let known = ["inf", "infinity", "nan"].contains(&digits.to_ascii_lowercase().as_str());
    text.replace('_', "").parse().ok().filter(|_| between && (!named || known))
}

fn whole(number: f64) -> Option<Value> {
    let fits = number.is_finite() && number.abs() < 1e37;
    fits.then(|| number.trunc() as i128).map(int_value)
}

fn int_value(number: i128) -> Value {
    i64::try_from(number).map_or_else(|_| Value::from(number), Value::from)
}

fn to_int(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, default, base] = bind(args, ["value", "default", "base"], 1)?;
    let value = value.unwrap_or_default();
    let base = base.map_or(Ok(10), |base| integer(&base, "the base"))?;
    let base = u32::try_from(base).ok().filter(|base| (2..=36).contains(base));
    let base = base.ok_or_else(|| invalid("the base must be from 2 to 36"))?;
    let found = match (value.as_str(), value.kind()) {
        _ if value.is_undefined() => return Err(invalid("an undefined value is no number")),
        (Some(text), _) => parse_int(text, base).map(int_value).or_else(|| whole(parse_float(text)?)),
        (None, ValueKind::Number) if value.is_integer() => Some(value),
        _ => float(&value).and_then(whole),
    };
    Ok(found.or(default).unwrap_or_else(|| Value::from(0)))
}

fn to_float(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, default] = bind(args, ["value", "default"], 1)?;
    let value = value.unwrap_or_default();
    if value.is_undefined() {
        return Err(invalid("an undefined value is no number"));
    }
    let found = value.as_str().map_or_else(|| float(&value), parse_float);
    Ok(found.map(Value::from).or(default).unwrap_or_else(|| Value::from(0.0)))
}

fn percent(state: &mut State, mut args: Vec<Value>) -> Result<Value, Error> {
    let named = args.pop_if(|last| last.is_kwargs());
    let mut places = args.into_iter();
    let pattern = str_of(state, &places.next().unwrap_or_default())?;
    let places: Vec<Value> = places.collect();
    let values = match named {
        Some(_) if !places.is_empty() => return Err(invalid("format takes places or names, not both")),
        Some(named) => {
            let keys = named.try_iter()?;
            let pairs = keys.map(|key| named.get_item(&key).map(|value| (key, value)));
            Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?)
        }
        None => Value::from(minijinja::value::Tuple::from(places)),
    };
    text_value(state, format::percent(state, &pattern, &values)?)
}

fn indent(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, by, first, blank] = bind(args, ["value", "width", "first", "blank"], 1)?;
    let value = value.unwrap_or_default();
    let text = value.as_str().ok_or_else(|| invalid(format!("{} cannot be indented", value.kind())))?;
    let by = match by.as_ref().map(|by| (by.as_str(), by)) {
        None => "    ".to_owned(),
        Some((Some(text), _)) => text.to_owned(),
        Some((None, number)) => {
            let by = width(number, "the width")?;
            charge(state, by)?;
            " ".repeat(by)
        }
    };
    let (first, blank) = (is_true(first.as_ref()), is_true(blank.as_ref()));
    // As if a line were there after the last line end.
    let text = format!("{text}\n");
    let mut out = String::new();
    for (index, line) in lines(&text, false).into_iter().enumerate() {
        if index > 0 {
            out.push('\n');
        }
        let wanted = if index == 0 { first } else { blank || !line.is_empty() };
        let by = if wanted { by.as_str() } else { "" };
        charge(state, by.len() + line.len())?;
        out.extend([by, line]);
    }
    Ok(out.into())
}

fn replaced(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, old, new, count] = bind(args, ["s", "old", "new", "count"], 3)?;
    let value = value.unwrap_or_default();
    let text = text_of(state, &value)?;
    let old = str_of(state, &old.unwrap_or_default())?;
    let new = str_of(state, &new.unwrap_or_default())?;
    let count = count.filter(|count| !count.is_none());
    let count = count.map_or(Ok(-1), |count| integer(&count, "the count"))?;
    replace(state, &text, &old, &new, count)
}

fn round(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, precision, method] = bind(args, ["value", "precision", "method"], 1)?;
    let value = value.unwrap_or_default();
    let precision = precision.map_or(Ok(0), |precision| integer(&precision, "the precision"))?;
    let number = float(&value).ok_or_else(|| invalid(format!("{} cannot be rounded", value.kind())))?;
    let power = 10f64.powi(i32::try_from(precision.clamp(-400, 400)).unwrap_or(0));
    Ok(match method.as_ref().map_or(Some("common"), Value::as_str) {
        Some("ceil") => ((number * power).ceil() / power).into(),
        Some("floor") => ((number * power).floor() / power).into(),
        Some("common") if precision >= 0 && (value.is_integer() || !value.is_number()) => {
            integer(&value, "the value")?.into()
        }
        Some("common") if precision >= 0 => {
            let digits = usize::try_from(precision.min(400)).unwrap_or(0);
            // Rust rounds the exact value, half to even, as Python does.
            let rounded: f64 = format!("{number:.digits$}").parse().unwrap_or(number);
            rounded.into()
        }
        Some("common") if value.is_integer() => return Err(invalid("an integer rounded to tens")),
        Some("common") => ((number * power).round_ties_even() / power).into(),
        _ => return Err(invalid("round knows common, ceil and floor")),
    })
}

fn strip_tags(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let mut text = str_of(state, &value.unwrap_or_default())?;
    for (open, close) in [("<!--", "-->"), ("<", ">")] {
        let mut out = String::with_capacity(text.len());
        let mut rest = text.as_str();
        while let Some(start) = rest.find(open) {
            let Some(end) = rest[start..].find(close) else { break };
            out.push_str(&rest[..start]);
            rest = &rest[start + end + close.len()..];
        }
        out.push_str(rest);
        text = out;
    }
    if text.contains('&') && text.contains(';') {
        return Err(invalid("striptags of a text with entities such as &amp;"));
    }
    text_value(state, text.split_whitespace().collect::<Vec<_>>().join(" "))
}

/// Jinja2's own: words begin behind spaces, hyphens and opening brackets.
fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut word = String::new();
    for c in text.chars().map(Some).chain([None]) {
        match c {
            Some(c) if !(c.is_whitespace() || "-({[<".contains(c)) => word.push(c),
            other => {
                let mut chars = word.chars();
                out.extend(chars.next().into_iter().flat_map(char::to_uppercase));
                out.push_str(&chars.as_str().to_lowercase());
                out.extend(other);
                word.clear();
            }
        }
    }
    out
}

fn trim(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, chars] = bind(args, ["value", "chars"], 1)?;
    let value = value.unwrap_or_default();
    let text = text_of(state, &value)?;
    let chars = chars.filter(|chars| !chars.is_none());
    let wrong = || invalid("trim takes characters as a text");
    let chars = chars.as_ref().map(|chars| chars.as_str().ok_or_else(wrong)).transpose()?;
    text_value(state, stripped(&text, "strip", chars).to_owned())
}

fn truncate(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["s", "length", "killwords", "end", "leeway"];
    let [value, length, kill, end, leeway] = bind(args, names, 1)?;
    let value = value.unwrap_or_default();
    let length = length.map_or(Ok(255), |length| width(&length, "the length"))?;
    let leeway = leeway.filter(|leeway| !leeway.is_none());
    let leeway = leeway.map_or(Ok(5), |leeway| width(&leeway, "the leeway"))?;
    let end = end.map_or(Ok("...".to_owned()), |end| str_of(state, &end))?;
    let end_len = end.chars().count();
    if length < end_len {
        return Err(invalid(format!("truncate to {length} characters has no room for {end:?}")));
    }
    let len = match value.as_str() {
        Some(text) => text.chars().count(),
        None if value.is_undefined() => 0,
        None => value.len().ok_or_else(|| invalid(format!("{} cannot be truncated", value.kind())))?,
    };
    if len <= length.saturating_add(leeway) {
        return string(state, vec![value]);
    }
    let text = value.as_str().ok_or_else(|| invalid("only a text can be truncated"))?;
    let kept: String = text.chars().take(length - end_len).collect();
    let kept = match is_true(kill.as_ref()) {
        true => kept.as_str(),
        false => kept.rsplit_once(' ').map_or(kept.as_str(), |(before, _)| before),
    };
    text_value(state, format!("{kept}{end}"))
}

/// A text as part of an address; a space is `%20`, or `+` in a query.
fn quoted(text: &str, query: bool) -> String {
    let mut out = String::with_capacity(text.len());
    for byte in text.bytes() {
        match byte {
            b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'_' | b'.' | b'-' | b'~' => out.push(byte.into()),
            b'/' if !query => out.push('/'),
            b' ' if query => out.push('+'),
            other => out.push_str(&format!("%{other:02X}")),
        }
    }
    out
}

fn url_encode(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    if value.as_str().is_some() || !super::python::is_iterable(&value) {
        let text = str_of(state, &value)?;
        return text_value(state, quoted(&text, false));
    }
    let mut parts = Vec::new();
    for item in items(state, &value)? {
        let (key, value) = match value.kind() {
            ValueKind::Map => (item.clone(), value.get_item(&item)?),
            _ => match items(state, &item)?.as_slice() {
                [key, value] => (key.clone(), value.clone()),
                _ => return Err(invalid("urlencode takes a text, a dict or pairs")),
            },
        };
        let (key, value) = (str_of(state, &key)?, str_of(state, &value)?);
        parts.push(format!("{}={}", quoted(&key, true), quoted(&value, true)));
    }
    text_value(state, parts.join("&"))
}

fn word_count(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    let text = text_of(state, &value)?;
    let word = |c: char| c.is_alphanumeric() || c == '_';
    Ok(text.split(|c| !word(c)).filter(|part| !part.is_empty()).count().into())
}

fn word_wrap(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let names = ["s", "width", "break_long_words", "wrapstring", "break_on_hyphens"];
    let [value, size, long, with, _] = bind(args, names, 1)?;
    let value = value.unwrap_or_default();
    let text = value.as_str().ok_or_else(|| invalid(format!("{} cannot be wrapped", value.kind())))?;
    let size = size.map_or(Ok(79), |size| width(&size, "the width"))?;
    let long = long.is_none_or(|long| long.is_true());
    let simple = |c: char| c == ' ' || !c.is_whitespace() && c != '-';
    if size == 0 || !text.chars().all(|c| simple(c) || c == '\n') {
        return Err(invalid("wordwrap of a text with hyphens, tabs or other white space"));
    }
    let with = with.filter(|with| !with.is_none());
    let with = with.map_or(Ok("\n".to_owned()), |with| str_of(state, &with))?;
    let wrapped: Vec<String> =
        lines(text, false).into_iter().map(|line| wrap(line, size, long, &with)).collect();
    text_value(state, wrapped.join(&with))
}

/// One line as `textwrap` wraps it, white space kept but at ends of lines.
fn wrap(line: &str, size: usize, long: bool, with: &str) -> String {
    let mut chunks: Vec<String> = Vec::new();
    for c in line.chars() {
        match chunks.last_mut().filter(|last| last.starts_with(' ') == (c == ' ')) {
            Some(last) => last.push(c),
            None => chunks.push(c.to_string()),
        }
    }
    chunks.reverse();
    let mut out: Vec<String> = Vec::new();
    while let Some(mut chunk) = chunks.pop() {
        if chunk.trim().is_empty() && !out.is_empty() {
            continue;
        }
        let (mut current, mut len) = (String::new(), 0);
        loop {
            let wide = chunk.chars().count();
            if len + wide <= size {
                current.push_str(&chunk);
                len += wide;
            } else if wide > size && (long || current.is_empty()) {
                let room = if long { size - len } else { wide };
                current.extend(chunk.chars().take(room));
                let rest: String = chunk.chars().skip(room).collect();
                chunks.extend(Some(rest).filter(|rest| !rest.is_empty()));
                break;
            } else {
                chunks.push(chunk);
                break;
            }
            match chunks.pop() {
                Some(next) => chunk = next,
                None => break,
            }
        }
        out.push(current.trim_end_matches(' ').to_owned());
    }
    out.retain(|line| !line.is_empty());
    out.join(with)
}
