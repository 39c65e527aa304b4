//! Jinja2 as Python runs it, over minijinja: its filters, tests, operators, methods and formats.
//!
//! minijinja has the language and its own taste in values: none is an empty list, a number is less
//! than a text, `%` knows no texts. Chat templates were tried with Jinja2 alone, so whatever differs
//! is replaced here, and what Jinja2 refuses is refused. [`syntax`] turns the operators into calls.

mod collections;
mod compare;
mod filters;
mod format;
mod methods;
mod objects;
mod python;
mod syntax;
mod text;

use minijinja::value::{Kwargs, Rest, Value, ValueKind, ValueOrKwargs};
use minijinja::{Environment, Error, ErrorKind, State};

pub(crate) use methods::method;
pub(crate) use syntax::rewrite;
pub(crate) use text::{float_repr, write_value};

/// A filter, test or function: all arguments, named ones last in one value.
type Callable = fn(&mut State, Vec<Value>) -> Result<Value, Error>;

/// Puts Jinja2's filters, tests and functions into an environment.
pub(crate) fn install(env: &mut Environment<'static>) {
    for (name, filter) in filters::ALL.into_iter().chain(collections::ALL) {
        env.add_filter(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            filter(state, args.into_values())
        });
    }
    // Of no use to a prompt: chance, links, attributes of XML, and an indentation that takes gigabytes.
    for name in ["pprint", "random", "urlize", "xmlattr", "lines", "chain", "zip", "bool", "split"] {
        env.remove_filter(name);
    }
    for (name, test) in compare::TESTS {
        env.add_test(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            test(state, args.into_values()).map(|result| result.is_true())
        });
    }
    for (name, function) in compare::OPERATORS.into_iter().chain(objects::FUNCTIONS) {
        env.add_function(name, move |state: &mut State, args: Rest<ValueOrKwargs>| {
            function(state, args.into_values())
        });
    }
}

pub(crate) fn invalid(what: impl Into<std::borrow::Cow<'static, str>>) -> Error {
    Error::new(ErrorKind::InvalidOperation, what)
}

/// Arguments by name, as Python binds them. The first `required` must be there.
pub(crate) fn bind<const N: usize>(
    args: Vec<Value>,
    names: [&'static str; N],
    required: usize,
) -> Result<[Option<Value>; N], Error> {
    let mut bound = [const { None }; N];
    let mut place = 0;
    for arg in args {
        if !arg.is_kwargs() {
            *bound.get_mut(place).ok_or(ErrorKind::TooManyArguments)? = Some(arg);
            place += 1;
            continue;
        }
        let kwargs = Kwargs::try_from(arg)?;
        for name in kwargs.args() {
            let place = names.iter().position(|known| *known == name && *known != "value");
            let unknown = || Error::new(ErrorKind::TooManyArguments, format!("no argument is called {name}"));
            let place = place.ok_or_else(unknown)?;
            if bound[place].replace(kwargs.peek(name)?).is_some() {
                return Err(invalid(format!("the argument {name} is there twice")));
            }
        }
    }
    match bound[..required].iter().any(Option::is_none) {
        true => Err(ErrorKind::MissingArgument.into()),
        false => Ok(bound),
    }
}

/// The items of a value, as a loop of Python sees them; none and numbers have no items.
fn items(state: &State, value: &Value) -> Result<Vec<Value>, Error> {
    match value.kind() {
        ValueKind::None => return Err(invalid("none is not iterable")),
        ValueKind::Map if !python::is_mapping(value) => {
            return Err(invalid("a namespace is not iterable"));
        }
        _ => {}
    }
    let iter = value.try_iter()?;
    if let Some(len) = value.len() {
        state.consume_fuel(len as u64 / 2)?;
    }
    let mut items = Vec::new();
    for item in iter {
        items.push(item);
        if items.len().is_multiple_of(1024) {
            state.consume_fuel(512)?;
        }
    }
    Ok(items)
}

/// Pays for so many bytes before they are made.
fn charge(state: &State, bytes: usize) -> Result<(), Error> {
    state.consume_fuel(bytes as u64 / 64)
}

/// A text as a value, paid for.
fn text_value(state: &State, text: String) -> Result<Value, Error> {
    charge(state, text.len())?;
    Ok(Value::from(text))
}

/// An integer; booleans are integers.
fn integer(value: &Value, what: &str) -> Result<i64, Error> {
    let number = matches!(value.kind(), ValueKind::Number | ValueKind::Bool);
    let wrong = || invalid(format!("{what} must be an integer, not {}", value.kind()));
    if !number || value.is_number() && !value.is_integer() {
        return Err(wrong());
    }
    i64::try_from(value.clone()).map_err(|_| wrong())
}

/// An integer that sizes something, at most what a text may have.
fn width(value: &Value, what: &str) -> Result<usize, Error> {
    let width = integer(value, what)?.max(0);
    usize::try_from(width).map_err(|_| invalid(format!("{what} is too large")))
}

/// A number as a float; `None` for what is no number.
fn float(value: &Value) -> Option<f64> {
    match value.kind() {
        ValueKind::Number if value.is_integer() => i128::try_from(value.clone()).ok().map(|n| n as f64),
        ValueKind::Number => f64::try_from(value.clone()).ok(),
        ValueKind::Bool => Some(f64::from(u8::from(value.is_true()))),
        _ => None,
    }
}

fn is_true(value: Option<&Value>) -> bool {
    value.is_some_and(Value::is_true)
}

/// Whether a sequence is a list or a tuple, which JSON has.
pub(crate) fn is_list(value: &Value) -> bool {
    !(text::is::<objects::Range>(value)
        || text::is::<objects::View>(value)
        || text::is::<objects::Generator>(value))
}
