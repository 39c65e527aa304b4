//! Python's methods of texts, lists, dicts and numbers.

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, ErrorKind, State};

use super::objects::View;
use super::python::is_mapping;
use super::{bind, charge, format, integer, invalid, is_true, items, text_value, width};

/// A method of a value. Those that change it are refused, as in Jinja2's sandbox.
pub(crate) fn method(state: &mut State, value: &Value, name: &str, args: &[Value]) -> Result<Value, Error> {
    let found = match value.kind() {
        ValueKind::String => text_method(state, value.as_str().unwrap_or_default(), name, args)?,
        ValueKind::Map if is_mapping(value) => dict_method(state, value, name, args)?,
        ValueKind::Seq => list_method(state, value, name, args)?,
        ValueKind::Number | ValueKind::Bool => number_method(value, name, args)?,
        _ => None,
    };
    found.ok_or_else(|| Error::from(ErrorKind::UnknownMethod))
}

fn number_method(value: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let whole = value.kind() == ValueKind::Bool || value.is_integer();
    let result = match name {
        "is_integer" => super::float(value).is_some_and(|f| f.fract() == 0.0).into(),
        "bit_length" if whole => {
            let number = i128::try_from(value.clone())?;
            Value::from(128 - number.unsigned_abs().leading_zeros())
        }
        _ => return Ok(None),
    };
    bind(args.to_vec(), [], 0)?;
    Ok(Some(result))
}

fn list_method(state: &State, list: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let args = args.to_vec();
    Ok(Some(match name {
        "copy" if !list.is_tuple() => {
            bind(args, [], 0)?;
            Value::from(items(state, list)?)
        }
        "count" => {
            let [wanted] = bind(args, ["value"], 1)?;
            Value::from(items(state, list)?.iter().filter(|item| Some(*item) == wanted.as_ref()).count())
        }
        "index" => {
            let [wanted, from, to] = bind(args, ["value", "start", "stop"], 1)?;
            let found = items(state, list)?;
            let (from, to) = bounds(found.len(), from.as_ref(), to.as_ref())?;
            let place = (from..to).find(|place| Some(&found[*place]) == wanted.as_ref());
            Value::from(place.ok_or_else(|| invalid("the value is not in the list"))?)
        }
        _ => return Ok(None),
    }))
}

fn dict_method(state: &State, dict: &Value, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    let args = args.to_vec();
    Ok(Some(match name {
        "items" | "keys" | "values" => {
            bind(args, [], 0)?;
            return View::of(state, dict, name);
        }
        "copy" => {
            bind(args, [], 0)?;
            let keys = items(state, dict)?.into_iter();
            let pairs = keys.map(|key| dict.get_item(&key).map(|value| (key, value)));
            Value::from_pairs(pairs.collect::<Result<Vec<_>, Error>>()?)
        }
        "get" => {
            let [key, default] = bind(args, ["value", "default"], 1)?;
            let key = key.unwrap_or_default();
            let found = dict.get_item(&key)?;
            let there = !found.is_undefined() || items(state, dict)?.contains(&key);
            if there { found } else { default.unwrap_or_else(|| Value::from(())) }
        }
        _ => return Ok(None),
    }))
}

/// `start` and `stop` within a length, as in a slice.
fn bounds(len: usize, start: Option<&Value>, stop: Option<&Value>) -> Result<(usize, usize), Error> {
    let place = |value: Option<&Value>, default: usize| match value.filter(|value| !value.is_none()) {
        None => Ok::<usize, Error>(default),
        Some(value) => {
            let place = integer(value, "a bound")?;
            let place = if place < 0 { place.saturating_add(len as i64).max(0) } else { place };
            Ok(usize::try_from(place).unwrap_or(usize::MAX).min(len))
        }
    };
    let (start, stop) = (place(start, 0)?, place(stop, len)?);
    Ok((start, stop.max(start)))
}

/// The part of a text between two bounds in characters, and the first of them; `None` if it begins
/// behind the text.
fn part<'a>(
    text: &'a str,
    start: Option<&Value>,
    stop: Option<&Value>,
) -> Result<Option<(&'a str, usize)>, Error> {
    if start.is_none() && stop.is_none() {
        return Ok(Some((text, 0)));
    }
    let len = text.chars().count();
    let behind = start.and_then(Value::as_i64).is_some_and(|start| start > len as i64);
    let (from, to) = bounds(len, start, stop)?;
    let byte = |place: usize| text.char_indices().nth(place).map_or(text.len(), |(byte, _)| byte);
    Ok((!behind).then(|| (&text[byte(from)..byte(to)], from)))
}

fn text_of(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| invalid(format!("expected a text, not {}", value.kind())))
}

fn text_method(state: &State, text: &str, name: &str, args: &[Value]) -> Result<Option<Value>, Error> {
    if let Some(result) = simple_method(text, name) {
        bind(args.to_vec(), [], 0)?;
        return match result {
            Simple::Text(text) => text_value(state, text).map(Some),
            Simple::Holds(holds) => Ok(Some(holds.into())),
        };
    }
    let args = args.to_vec();
    let result = match name {
        "center" | "ljust" | "rjust" | "zfill" => justified(state, text, name, args)?,
        "count" | "find" | "index" | "rfind" | "rindex" => searched(text, name, args)?,
        "startswith" | "endswith" => {
            let [wanted, start, stop] = bind(args, ["value", "start", "end"], 1)?;
            affixed(text, name == "startswith", &wanted.unwrap_or_default(), (start.as_ref(), stop.as_ref()))?
        }
        "strip" | "lstrip" | "rstrip" => {
            let [chars] = bind(args, ["value"], 0)?;
            let chars = chars.filter(|chars| !chars.is_none());
            text_value(state, stripped(text, name, chars.as_ref().map(text_of).transpose()?).to_owned())?
        }
        "removeprefix" | "removesuffix" | "partition" | "rpartition" => cut(text, name, args)?,
        "split" | "rsplit" => {
            let [separator, most] = bind(args, ["sep", "maxsplit"], 0)?;
            split(state, text, name == "rsplit", separator, most)?
        }
        "splitlines" => {
            let [keep] = bind(args, ["keepends"], 0)?;
            let lines = lines(text, is_true(keep.as_ref()));
            charge(state, text.len())?;
            Value::from_iter(lines)
        }
        "replace" => {
            let [old, new, count] = bind(args, ["old", "new", "count"], 2)?;
            let count = count.map_or(Ok(-1), |count| integer(&count, "the count"))?;
            let (old, new) = (old.unwrap_or_default(), new.unwrap_or_default());
            replace(state, text, text_of(&old)?, text_of(&new)?, count)?
        }
        "expandtabs" => {
            let [size] = bind(args, ["tabsize"], 0)?;
            let size = size.map_or(Ok(8), |size| width(&size, "the tab's width"))?;
            expand_tabs(state, text, size)?
        }
        "join" => {
            let [list] = bind(args, ["value"], 1)?;
            join(state, text, &list.unwrap_or_default())?
        }
        "format" => text_value(state, format::braces(state, text, &args)?)?,
        "encode" if args.is_empty() => Value::from_bytes(text.as_bytes().to_vec()),
        _ => return Ok(None),
    };
    Ok(Some(result))
}

enum Simple {
    Text(String),
    Holds(bool),
}

/// Methods without arguments.
fn simple_method(text: &str, name: &str) -> Option<Simple> {
    let all = |holds: fn(char) -> bool| !text.is_empty() && text.chars().all(holds);
    let cased = |wanted: fn(char) -> bool, other: fn(char) -> bool| {
        text.chars().any(wanted) && !text.chars().any(other)
    };
    Some(match name {
        "upper" => Simple::Text(text.to_uppercase()),
        "lower" => Simple::Text(text.to_lowercase()),
        // Exact for every letter that templates compare; full folding also knows ß.
        "casefold" => Simple::Text(text.to_lowercase().replace('ß', "ss").replace('ς', "σ")),
        "capitalize" => Simple::Text(capitalize(text)),
        "title" => Simple::Text(title(text)),
        "swapcase" => Simple::Text(
            text.chars()
                .flat_map(|c| -> Vec<char> {
                    match c.is_uppercase() {
                        true => c.to_lowercase().collect(),
                        false => c.to_uppercase().collect(),
                    }
                })
                .collect(),
        ),
        "islower" => Simple::Holds(cased(char::is_lowercase, char::is_uppercase)),
        "isupper" => Simple::Holds(cased(char::is_uppercase, char::is_lowercase)),
        "isspace" => Simple::Holds(all(char::is_whitespace)),
        "isalpha" => Simple::Holds(all(char::is_alphabetic)),
        "isalnum" => Simple::Holds(all(char::is_alphanumeric)),
        "isdigit" | "isnumeric" | "isdecimal" => Simple::Holds(all(char::is_numeric)),
        "isascii" => Simple::Holds(text.is_ascii()),
        "isprintable" => Simple::Holds(text.chars().all(super::text::is_printable)),
        "isidentifier" => Simple::Holds(
            all(|c| c.is_alphanumeric() || c == '_') && !text.starts_with(|c: char| c.is_numeric()),
        ),
        "istitle" => Simple::Holds(text.chars().any(char::is_alphabetic) && text == title(text)),
        _ => return None,
    })
}

pub(super) fn capitalize(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(title_char).unwrap_or_default();
    first + &chars.as_str().to_lowercase()
}

/// A character as a word begins with it: of several capitals only the first is one.
fn title_char(c: char) -> String {
    let mut upper = c.to_uppercase();
    let first = upper.next().map(String::from).unwrap_or_default();
    first + &upper.flat_map(char::to_lowercase).collect::<String>()
}

fn title(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut within = false;
    for c in text.chars() {
        match within {
            true => out.extend(c.to_lowercase()),
            false => out.push_str(&title_char(c)),
        }
        within = c.is_alphabetic();
    }
    out
}

fn justified(state: &State, text: &str, name: &str, args: Vec<Value>) -> Result<Value, Error> {
    let [size, fill] = bind(args, ["width", "fillchar"], 1)?;
    let size = width(&size.unwrap_or_default(), "the width")?;
    charge(state, size)?;
    let fill = fill.as_ref().map(text_of).transpose()?.unwrap_or(if name == "zfill" { "0" } else { " " });
    if fill.chars().count() != 1 {
        return Err(invalid("a text is filled with one character"));
    }
    let missing = size.saturating_sub(text.chars().count());
    // Python's own rounding.
    let left = match name {
        "center" => missing / 2 + (missing & size & 1),
        "ljust" => 0,
        _ => missing,
    };
    let (sign, text) = match name == "zfill" && text.starts_with(['+', '-']) {
        true => text.split_at(1),
        false => ("", text),
    };
    text_value(state, [sign, &fill.repeat(left), text, &fill.repeat(missing - left)].concat())
}

fn searched(text: &str, name: &str, args: Vec<Value>) -> Result<Value, Error> {
    let [wanted, start, stop] = bind(args, ["value", "start", "end"], 1)?;
    let wanted = wanted.unwrap_or_default();
    let wanted = text_of(&wanted)?;
    let part = part(text, start.as_ref(), stop.as_ref())?;
    if name == "count" {
        return Ok(Value::from(part.map_or(0, |(part, _)| part.matches(wanted).count())));
    }
    let found = part.and_then(|(part, from)| {
        let byte = if name.starts_with('r') { part.rfind(wanted) } else { part.find(wanted) };
        byte.map(|byte| from + part[..byte].chars().count())
    });
    match found {
        Some(place) => Ok(Value::from(place)),
        None if name.ends_with("index") => Err(invalid("substring not found")),
        None => Ok(Value::from(-1)),
    }
}

fn affixed(
    text: &str,
    start: bool,
    wanted: &Value,
    bounds: (Option<&Value>, Option<&Value>),
) -> Result<Value, Error> {
    let Some((part, _)) = part(text, bounds.0, bounds.1)? else { return Ok(false.into()) };
    let has = |wanted: &str| if start { part.starts_with(wanted) } else { part.ends_with(wanted) };
    if !wanted.is_tuple() {
        return Ok(has(text_of(wanted)?).into());
    }
    for wanted in wanted.try_iter()? {
        if has(text_of(&wanted)?) {
            return Ok(true.into());
        }
    }
    Ok(false.into())
}

pub(super) fn stripped<'a>(text: &'a str, name: &str, chars: Option<&str>) -> &'a str {
    let unwanted = |c: char| chars.map_or_else(|| is_space(c), |chars| chars.contains(c));
    let text = if name == "rstrip" { text } else { text.trim_start_matches(unwanted) };
    if name == "lstrip" { text } else { text.trim_end_matches(unwanted) }
}

/// Python's whitespace: Rust's and four separators.
fn is_space(c: char) -> bool {
    c.is_whitespace() || ('\u{1c}'..='\u{1f}').contains(&c)
}

fn cut(text: &str, name: &str, args: Vec<Value>) -> Result<Value, Error> {
    let [wanted] = bind(args, ["value"], 1)?;
    let wanted = wanted.unwrap_or_default();
    let wanted = text_of(&wanted)?;
    let three = |parts: [&str; 3]| Value::from(Tuple::from(parts.map(Value::from).to_vec()));
    Ok(match name {
        "removeprefix" => text.strip_prefix(wanted).unwrap_or(text).into(),
        "removesuffix" => text.strip_suffix(wanted).unwrap_or(text).into(),
        _ if wanted.is_empty() => return Err(invalid("empty separator")),
        "partition" => three(text.split_once(wanted).map_or([text, "", ""], |(a, b)| [a, wanted, b])),
        _ => three(text.rsplit_once(wanted).map_or(["", "", text], |(a, b)| [a, wanted, b])),
    })
}

fn split(
    state: &State,
    text: &str,
    last: bool,
    separator: Option<Value>,
    most: Option<Value>,
) -> Result<Value, Error> {
    charge(state, text.len())?;
    let most = most.map_or(Ok(-1), |most| integer(&most, "maxsplit"))?;
    let most = usize::try_from(most).unwrap_or(usize::MAX - 1);
    let separator = separator.filter(|separator| !separator.is_none());
    let parts: Vec<&str> = match separator.as_ref().map(text_of).transpose()? {
        Some("") => return Err(invalid("empty separator")),
        Some(separator) if last => {
            let mut parts: Vec<&str> = text.rsplitn(most + 1, separator).collect();
            parts.reverse();
            parts
        }
        Some(separator) => text.splitn(most + 1, separator).collect(),
        None => words(text, last, most),
    };
    state.consume_fuel(parts.len() as u64 / 2)?;
    Ok(Value::from_iter(parts))
}

/// The words of a text, split so often at most, from the beginning or from the end.
fn words(text: &str, last: bool, most: usize) -> Vec<&str> {
    let mut words = Vec::new();
    // The other end keeps its space where the text is split no further.
    let skip = if last { str::trim_end_matches } else { str::trim_start_matches::<fn(char) -> bool> };
    let mut rest = skip(text, is_space);
    while !rest.is_empty() {
        let space = if last { rest.rfind(is_space) } else { rest.find(is_space) };
        let Some(space) = space.filter(|_| words.len() < most) else {
            words.push(rest);
            break;
        };
        let wide = rest[space..].chars().next().map_or(1, char::len_utf8);
        let (before, after) = (&rest[..space], &rest[space + wide..]);
        words.push(if last { after } else { before });
        rest = skip(if last { before } else { after }, is_space);
    }
    if last {
        words.reverse();
    }
    words
}

/// The lines of a text, at all of Python's line ends.
pub(super) fn lines(text: &str, keep: bool) -> Vec<&str> {
    const ENDS: [char; 10] =
        ['\n', '\r', '\u{b}', '\u{c}', '\u{1c}', '\u{1d}', '\u{1e}', '\u{85}', '\u{2028}', '\u{2029}'];
    let mut lines = Vec::new();
    let mut rest = text;
    while !rest.is_empty() {
        let Some(end) = rest.find(ENDS) else {
            lines.push(rest);
            break;
        };
        let wide = match rest[end..].starts_with("\r\n") {
            true => 2,
            false => rest[end..].chars().next().map_or(1, char::len_utf8),
        };
        lines.push(&rest[..if keep { end + wide } else { end }]);
        rest = &rest[end + wide..];
    }
    lines
}

pub(super) fn replace(state: &State, text: &str, old: &str, new: &str, count: i64) -> Result<Value, Error> {
    let most = usize::try_from(count).unwrap_or(usize::MAX);
    let places = text.matches(old).count().min(most);
    charge(state, text.len().saturating_add(places.saturating_mul(new.len())))?;
    Ok(text.replacen(old, new, most).into())
}

fn expand_tabs(state: &State, text: &str, size: usize) -> Result<Value, Error> {
    let mut out = String::new();
    let mut column = 0;
    for c in text.chars() {
        match c {
            '\t' if size > 0 => {
                let missing = size - column % size;
                charge(state, missing)?;
                out.extend(std::iter::repeat_n(' ', missing));
                column += missing;
            }
            '\t' => {}
            c => {
                column = if matches!(c, '\n' | '\r') { 0 } else { column + 1 };
                out.push(c);
            }
        }
    }
    text_value(state, out)
}

fn join(state: &State, separator: &str, list: &Value) -> Result<Value, Error> {
    let mut out = String::new();
    for (index, item) in items(state, list)?.iter().enumerate() {
        let item = text_of(item)?;
        charge(state, item.len() + separator.len())?;
        if index > 0 {
            out.push_str(separator);
        }
        out.push_str(item);
    }
    Ok(out.into())
}
