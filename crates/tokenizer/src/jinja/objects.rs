//! What Python has a type for and minijinja has not: ranges, views of dicts, generators, and Jinja2's
//! `cycler` and `joiner`.

use std::fmt;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use minijinja::value::{Enumerator, Kwargs, Object, ObjectRepr, Tuple, Value, ValueKind};
use minijinja::{Error, State};

use super::{Callable, bind, integer, invalid, items};

/// Longest range, as in Jinja2's sandbox.
const RANGE_MAX: usize = 100_000;

pub(super) const FUNCTIONS: [(&str, Callable); 5] =
    [("range", range), ("cycler", cycler), ("joiner", joiner), ("dict", dict), ("__iter", iter)];

/// What a loop goes over.
fn iter(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [value] = bind(args, ["value"], 1)?;
    let value = value.unwrap_or_default();
    match value.kind() {
        ValueKind::None => Err(invalid("none is not iterable")),
        ValueKind::Map if !super::python::is_mapping(&value) => Err(invalid("a namespace is not iterable")),
        _ => Ok(value),
    }
}

/// Python's `range`.
#[derive(Debug)]
pub(super) struct Range {
    start: i64,
    stop: i64,
    step: i64,
}

impl Range {
    fn len(&self) -> usize {
        let (from, to) = if self.step > 0 { (self.start, self.stop) } else { (self.stop, self.start) };
        let span = i128::from(to) - i128::from(from);
        usize::try_from(span).map_or(0, |span| span.div_ceil(self.step.unsigned_abs() as usize))
    }
}

impl fmt::Display for Range {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.step {
            1 => write!(f, "range({}, {})", self.start, self.stop),
            step => write!(f, "range({}, {}, {step})", self.start, self.stop),
        }
    }
}

impl Object for Range {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let index = key.as_i64()?;
        let len = self.len() as i64;
        let index = if index < 0 { index + len } else { index };
        (0..len).contains(&index).then(|| Value::from(self.start + index * self.step))
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(self.len())
    }
}

fn range(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [first, second, step] = bind(args, ["value", "stop", "step"], 1)?;
    let number =
        |value: &Option<Value>| value.as_ref().map(|value| integer(value, "range's argument")).transpose();
    let (first, second) = (number(&first)?.unwrap_or(0), number(&second)?);
    let step = number(&step)?.unwrap_or(1);
    if step == 0 {
        return Err(invalid("range's step is zero"));
    }
    let (start, stop) = second.map_or((0, first), |stop| (first, stop));
    let range = Range { start, stop, step };
    let len = range.len();
    if len > RANGE_MAX {
        return Err(invalid(format!("a range of {len} numbers is longer than {RANGE_MAX}")));
    }
    state.consume_fuel(len as u64 / 2)?;
    Ok(Value::from_object(range))
}

/// `items()`, `keys()` and `values()` of a dict.
#[derive(Debug)]
pub(super) struct View {
    kind: &'static str,
    items: Vec<Value>,
}

impl View {
    pub(super) fn of(state: &State, map: &Value, kind: &str) -> Result<Option<Value>, Error> {
        let keys = || items(state, map);
        let at = |key: Value| map.get_item(&key).map(|value| (key, value));
        let (kind, items): (_, Result<Vec<Value>, Error>) = match kind {
            "keys" => ("dict_keys", keys()),
            "values" => ("dict_values", keys()?.into_iter().map(|key| Ok(at(key)?.1)).collect()),
            "items" => {
                let pair = |key| at(key).map(|(key, value)| Value::from(Tuple::from(vec![key, value])));
                ("dict_items", keys()?.into_iter().map(pair).collect())
            }
            _ => return Ok(None),
        };
        Ok(Some(Value::from_object(View { kind, items: items? })))
    }

    pub(super) fn name(&self) -> &'static str {
        self.kind
    }
}

impl Object for View {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Values(self.items.clone())
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        Some(self.items.len())
    }

    fn is_true(self: &Arc<Self>) -> bool {
        !self.items.is_empty()
    }
}

/// What `map`, `select` and others give: items that are there once.
#[derive(Debug)]
pub(super) struct Generator(Mutex<Vec<Value>>);

impl Generator {
    pub(super) fn value(items: Vec<Value>) -> Value {
        Value::from_object(Generator(Mutex::new(items)))
    }
}

impl Object for Generator {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Iterable
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        let mut items = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        Enumerator::Iter(Box::new(std::mem::take(&mut *items).into_iter()))
    }

    fn enumerator_len(self: &Arc<Self>) -> Option<usize> {
        None
    }

    fn is_true(self: &Arc<Self>) -> bool {
        true
    }
}

/// Jinja2's `cycler`.
#[derive(Debug)]
struct Cycler {
    items: Vec<Value>,
    place: AtomicUsize,
}

impl Object for Cycler {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        let current = || self.items.get(self.place.load(Ordering::Relaxed)).cloned();
        current().filter(|_| key.as_str() == Some("current"))
    }

    fn call_method(
        self: &Arc<Self>,
        _: &mut State<'_, '_>,
        method: &str,
        args: &[Value],
    ) -> Result<Value, Error> {
        let place = self.place.load(Ordering::Relaxed);
        let (next, result) = match (method, args) {
            ("next", []) => ((place + 1) % self.items.len(), self.items[place].clone()),
            ("reset", []) => (0, Value::from(())),
            _ => return Err(minijinja::ErrorKind::UnknownMethod.into()),
        };
        self.place.store(next, Ordering::Relaxed);
        Ok(result)
    }
}

fn cycler(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    match args.is_empty() || args.iter().any(Value::is_kwargs) {
        true => Err(invalid("cycler takes one item at least")),
        false => Ok(Value::from_object(Cycler { items: args, place: AtomicUsize::new(0) })),
    }
}

/// Jinja2's `joiner`.
#[derive(Debug)]
struct Joiner {
    separator: Value,
    calls: AtomicUsize,
}

impl Object for Joiner {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Plain
    }

    fn call(self: &Arc<Self>, _: &mut State<'_, '_>, _: &[Value]) -> Result<Value, Error> {
        let first = self.calls.fetch_add(1, Ordering::Relaxed) == 0;
        Ok(if first { Value::from("") } else { self.separator.clone() })
    }
}

fn joiner(_: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let [separator] = bind(args, ["sep"], 0)?;
    let separator = separator.unwrap_or_else(|| Value::from(", "));
    Ok(Value::from_object(Joiner { separator, calls: AtomicUsize::new(0) }))
}

/// Python's `dict`: a dict or pairs, then named fields.
fn dict(state: &mut State, args: Vec<Value>) -> Result<Value, Error> {
    let mut pairs: Vec<(Value, Value)> = Vec::new();
    for (index, arg) in args.into_iter().enumerate() {
        if arg.is_kwargs() {
            let kwargs = Kwargs::try_from(arg)?;
            for name in kwargs.args() {
                pairs.push((Value::from(name), kwargs.peek(name)?));
            }
        } else if index > 0 {
            return Err(minijinja::ErrorKind::TooManyArguments.into());
        } else if arg.kind() == ValueKind::Map {
            for key in items(state, &arg)? {
                let value = arg.get_item(&key)?;
                pairs.push((key, value));
            }
        } else {
            for pair in items(state, &arg)? {
                match items(state, &pair)?.as_slice() {
                    [key, value] => pairs.push((key.clone(), value.clone())),
                    other => return Err(invalid(format!("dict takes pairs, not {} items", other.len()))),
                }
            }
        }
    }
    Ok(Value::from_pairs(pairs))
}

/// A pair with names.
#[derive(Debug)]
pub(super) struct Group(pub(super) Value, pub(super) Value);

impl Object for Group {
    fn repr(self: &Arc<Self>) -> ObjectRepr {
        ObjectRepr::Seq
    }

    fn get_value(self: &Arc<Self>, key: &Value) -> Option<Value> {
        match (key.as_str(), key.as_i64()) {
            (Some("grouper"), _) | (_, Some(0)) => Some(self.0.clone()),
            (Some("list"), _) | (_, Some(1)) => Some(self.1.clone()),
            _ => None,
        }
    }

    fn enumerate(self: &Arc<Self>) -> Enumerator {
        Enumerator::Seq(2)
    }
}

impl Group {
    /// Its text is that of a pair.
    fn pair(&self) -> Value {
        Value::from(Tuple::from(vec![self.0.clone(), self.1.clone()]))
    }
}

/// A group's text is that of a pair.
pub(super) fn as_pair(value: &Value) -> Option<Value> {
    value.downcast_object_ref::<Group>().map(Group::pair)
}
