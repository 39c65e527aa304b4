//! Operators and tests: Python refuses where minijinja orders everything.

use std::cmp::Ordering;

use minijinja::value::{Tuple, Value, ValueKind};
use minijinja::{Error, State};

use super::objects::Range;
use super::python::{is_iterable, is_mapping, is_sequence};
use super::text::{escaped, is, str_of};
use super::{Callable, bind, charge, format, integer, invalid, items};

/// What [`super::syntax`] calls in place of operators.
pub(super) const OPERATORS: [(&str, Callable); 6] = [
    ("__add", add),
    ("__compare", comparison),
    ("__concat", concat),
    ("__parts", parts),
    ("__refuse", |_, args| Err(invalid(args.first().map(Value::to_string).unwrap_or_default()))),
    ("__remainder", remainder),
];

pub(super) const TESTS: [(&str, Callable); 27] = [
    ("boolean", |_, args| one(args, |value| value.kind() == ValueKind::Bool)),
    ("callable", callable),
    ("divisibleby", divisible_by),
    ("even", |_, args| parity(args, 0)),
    ("odd", |_, args| parity(args, 1)),
    ("lower", |state, args| cased(state, args, char::is_lowercase, char::is_uppercase)),
    ("upper", |state, args| cased(state, args, char::is_uppercase, char::is_lowercase)),
    ("sequence", |_, args| one(args, is_sequence)),
    ("iterable", |_, args| one(args, is_iterable)),
    ("mapping", |_, args| one(args, is_mapping)),
    ("in", |_, args| test(args, "in")),
    ("lt", |_, args| test(args, "<")),
    ("lessthan", |_, args| test(args, "<")),
    ("<", |_, args| test(args, "<")),
    ("le", |_, args| test(args, "<=")),
    ("<=", |_, args| test(args, "<=")),
    ("gt", |_, args| test(args, ">")),
    ("greaterthan", |_, args| test(args, ">")),
    (">", |_, args| test(args, ">")),
    ("ge", |_, args| test(args, ">=")),
    (">=", |_, args| test(args, ">=")),
    ("eq", |_, args| test(args, "==")),
    ("equalto", |_, args| test(args, "==")),
    ("==", |_, args| test(args, "==")),
    ("ne", |_, args| test(args, "!=")),
    ("!=", |_, args| test(args, "!=")),
    ("escaped", |_, args| one(args, Value::is_safe)),
];

/// `a < b` and `a < b <= c`, with the operators as texts between the operands.
fn comparison(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    for part in args.windows(3).step_by(2) {
        if !holds(&part[0], part[1].as_str().unwrap_or_default(), &part[2])? {
            return Ok(false.into());
        }
    }
    Ok(true.into())
}

fn test(args: Vec<Value>, operator: &str) -> Result<Value, Error> {
    let [a, b] = bind(args, ["value", "other"], 2)?;
    Ok(holds(&a.unwrap_or_default(), operator, &b.unwrap_or_default())?.into())
}

fn holds(a: &Value, operator: &str, b: &Value) -> Result<bool, Error> {
    Ok(match operator {
        "==" => a == b,
        "!=" => a != b,
        "in" => contains(b, a)?,
        "not in" => !contains(b, a)?,
        "<" => order(a, b)? == Some(Ordering::Less),
        ">" => order(a, b)? == Some(Ordering::Greater),
        "<=" => matches!(order(a, b)?, Some(Ordering::Less | Ordering::Equal)),
        ">=" => matches!(order(a, b)?, Some(Ordering::Greater | Ordering::Equal)),
        _ => return Err(invalid("there is no such comparison")),
    })
}

/// How two values are ordered, `None` with NaN; an error where Python has one.
pub(super) fn order(a: &Value, b: &Value) -> Result<Option<Ordering>, Error> {
    use ValueKind::{Bool, Number, Seq, String};
    match (a.kind(), b.kind()) {
        (Number | Bool, Number | Bool) => {
            let nan = |value: &Value| super::float(value).is_some_and(f64::is_nan);
            Ok(if nan(a) || nan(b) { None } else { Some(a.cmp(b)) })
        }
        (String, String) => Ok(Some(a.as_str().cmp(&b.as_str()))),
        (Seq, Seq) if a.is_tuple() == b.is_tuple() => {
            for (a, b) in a.try_iter()?.zip(b.try_iter()?) {
                if a != b {
                    return order(&a, &b);
                }
            }
            Ok(Some(a.len().cmp(&b.len())))
        }
        (left, right) => Err(invalid(format!("{left} and {right} have no order"))),
    }
}

fn contains(container: &Value, value: &Value) -> Result<bool, Error> {
    match (container.as_str(), value.as_str(), container.kind()) {
        (Some(text), Some(part), _) => Ok(text.contains(part)),
        (Some(_), None, _) => Err(invalid(format!("a text cannot contain {}", value.kind()))),
        (_, _, ValueKind::Undefined) => Ok(false),
        (_, _, ValueKind::Map) if is_mapping(container) => {
            Ok(!container.get_item(value)?.is_undefined() || container.try_iter()?.any(|key| key == *value))
        }
        (_, _, ValueKind::Seq | ValueKind::Iterable) => Ok(container.try_iter()?.any(|item| item == *value)),
        (_, _, kind) => Err(invalid(format!("{kind} contains nothing"))),
    }
}

/// What a slice is taken of.
fn parts(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    match is::<Range>(&value) {
        true => Err(invalid("a part of a range; put `| list` behind the range")),
        false => Ok(value),
    }
}

/// `a + b` in templates that mark texts as safe: what is added to such a text is escaped.
fn add(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [a, b] = bind(args, ["value", "other"], 2)?;
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    if let (Some(left), Some(right)) = (a.as_str(), b.as_str()) {
        charge(state, left.len() + right.len())?;
        let text = |value: &Value, text: &str| if value.is_safe() { text.to_owned() } else { escaped(text) };
        return Ok(match a.is_safe() || b.is_safe() {
            true => Value::from_safe_string(text(&a, left) + &text(&b, right)),
            false => [left, right].concat().into(),
        });
    }
    if a.kind() != ValueKind::Seq || b.kind() != ValueKind::Seq || a.is_tuple() != b.is_tuple() {
        return plus(&a, &b);
    }
    let mut both = items(state, &a)?;
    both.extend(items(state, &b)?);
    Ok(if a.is_tuple() { Value::from(Tuple::from(both)) } else { Value::from(both) })
}

/// `a ~ b ~ c`.
fn concat(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let mut out = String::new();
    for arg in &args {
        match arg.as_str() {
            Some(text) => {
                charge(state, text.len())?;
                out.push_str(text);
            }
            None => out.push_str(&str_of(state, arg)?),
        }
    }
    Ok(out.into())
}

/// `a % b`, of numbers or of a format and its values.
fn remainder(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [a, b] = bind(args, ["value", "other"], 2)?;
    let (a, b) = (a.unwrap_or_default(), b.unwrap_or_default());
    if let Some(pattern) = a.as_str() {
        return super::text_value(state, format::percent(state, pattern, &b)?);
    }
    let whole = |value: &Value| i128::try_from(value.clone()).ok().filter(|_| is_whole(value));
    if let (Some(a), Some(b)) = (whole(&a), whole(&b)) {
        let remainder = a.checked_rem(b).ok_or_else(|| invalid("remainder of a division by zero"))?;
        let other_sign = remainder != 0 && (remainder < 0) != (b < 0);
        let remainder = if other_sign { remainder + b } else { remainder };
        return Ok(i64::try_from(remainder).map_or_else(|_| Value::from(remainder), Value::from));
    }
    let both = super::float(&a).zip(super::float(&b));
    let (a, b) = both.ok_or_else(|| invalid(format!("no remainder of {} by {}", a.kind(), b.kind())))?;
    if b == 0.0 {
        return Err(invalid("remainder of a division by zero"));
    }
    let remainder = a % b;
    let other_sign = remainder != 0.0 && (remainder < 0.0) != (b < 0.0);
    Ok(if other_sign {
        remainder + b
    } else {
        remainder.copysign(if remainder == 0.0 { b } else { remainder })
    }
    .into())
}

/// The sum of two numbers.
pub(super) fn plus(a: &Value, b: &Value) -> Result<Value, Error> {
    let whole = |value: &Value| match value.kind() {
        ValueKind::Bool => Some(i128::from(value.is_true())),
        _ if value.is_integer() => i128::try_from(value.clone()).ok(),
        _ => None,
    };
    if let Some((a, b)) = whole(a).zip(whole(b)) {
        let total = a.checked_add(b).ok_or_else(|| invalid("the sum is too large"))?;
        return Ok(i64::try_from(total).map_or_else(|_| Value::from(total), Value::from));
    }
    let both = super::float(a).zip(super::float(b));
    both.map(|(a, b)| Value::from(a + b))
        .ok_or_else(|| invalid(format!("{} and {} cannot be added", a.kind(), b.kind())))
}

fn is_whole(value: &Value) -> bool {
    value.kind() == ValueKind::Bool || value.is_integer()
}

fn one(args: Vec<Value>, holds: impl Fn(&Value) -> bool) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    Ok(holds(&value.unwrap_or_default()).into())
}

fn callable(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    // An undefined value is called to say what is undefined.
    one(args, |value| value.is_undefined() || value.kind() == ValueKind::Plain)
}

fn divisible_by(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value, by] = bind(args, ["value", "num"], 2)?;
    let number = |value: Option<Value>| super::float(&value.unwrap_or_default());
    match number(value).zip(number(by)) {
        Some((value, by)) if by != 0.0 => Ok((value % by == 0.0).into()),
        _ => Err(invalid("divisibleby takes numbers, and none that is zero")),
    }
}

fn parity(args: Vec<Value>, rest: i64) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    if is_whole(&value) {
        return Ok((integer(&value, "the number")?.rem_euclid(2) == rest).into());
    }
    let value = super::float(&value).ok_or_else(|| invalid("only numbers are even or odd"))?;
    Ok((value.rem_euclid(2.0) == rest as f64).into())
}

fn cased(
    state: &mut State,
    args: Vec<Value>,
    wanted: fn(char) -> bool,
    unwanted: fn(char) -> bool,
) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let text = str_of(state, &value.unwrap_or_default())?;
    Ok((text.chars().any(wanted) && !text.chars().any(unwanted)).into())
}
