//! Settings by name, as passed in from another language, and the macro that declares each setting once.

use std::collections::BTreeMap;

use llamacpu_kernels::rope::RopeStyle;

use crate::Error;

/// The value of a setting.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// An integer.
    Integer(i64),
    /// Any other number.
    Number(f64),
    /// True or false.
    Flag(bool),
    /// A name or other text.
    Text(String),
    /// Several values, such as one per layer.
    List(Vec<Value>),
}

impl std::fmt::Display for Value {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Integer(value) => write!(formatter, "{value}"),
            Self::Number(value) => write!(formatter, "{value:?}"),
            Self::Flag(value) => write!(formatter, "{value}"),
            Self::Text(value) => write!(formatter, "{value:?}"),
            Self::List(values) => write!(formatter, "a list of {}", values.len()),
        }
    }
}

/// Settings by name.
#[derive(Debug, Default)]
pub struct Values {
    left: BTreeMap<String, Value>,
    known: Vec<&'static str>,
}

impl Values {
    /// Creates the collection, with none of its settings read yet.
    pub fn new(values: BTreeMap<String, Value>) -> Self {
        Self { left: values, known: Vec::new() }
    }

    /// Takes a setting out, or returns `default` if it is missing.
    pub(crate) fn take<T: Setting>(&mut self, name: &'static str, default: Option<T>) -> Result<T, Error> {
        self.known.push(name);
        let Some(value) = self.left.remove(name) else {
            return default.ok_or_else(|| Error::Model(format!("the configuration lacks {name:?}")));
        };
        T::read(&value).ok_or_else(|| {
            Error::Model(format!("the configuration's {name:?} cannot be {value}: expected {}", T::expected()))
        })
    }

    /// # Errors
    /// `Error::Model` if there are settings that nothing has read.
    pub fn finish(&self) -> Result<(), Error> {
        let unknown: Vec<_> = self.left.keys().take(4).map(|name| format!("{name:?}")).collect();
        if unknown.is_empty() {
            return Ok(());
        }
        let known = self.known.join(", ");
        Err(Error::Model(format!("the configuration has no setting {}: expected {known}", unknown.join(", "))))
    }
}

/// A type that a setting can have.
pub(crate) trait Setting: Sized {
    /// The value, if it is one of this type.
    fn read(value: &Value) -> Option<Self>;
    /// The expected form, for messages.
    fn expected() -> String;
}

impl Setting for usize {
    fn read(value: &Value) -> Option<Self> {
        if let Value::Integer(value) = value { Self::try_from(*value).ok() } else { None }
    }

    fn expected() -> String {
        "a whole number that is not negative".to_owned()
    }
}

impl Setting for f64 {
    fn read(value: &Value) -> Option<Self> {
        match value {
            Value::Integer(value) => Some(*value as Self),
            Value::Number(value) => Some(*value),
            _ => None,
        }
    }

    fn expected() -> String {
        "a number".to_owned()
    }
}

impl Setting for f32 {
    fn read(value: &Value) -> Option<Self> {
        f64::read(value).map(|value| value as Self)
    }

    fn expected() -> String {
        f64::expected()
    }
}

impl Setting for bool {
    fn read(value: &Value) -> Option<Self> {
        if let Value::Flag(value) = value { Some(*value) } else { None }
    }

    fn expected() -> String {
        "true or false".to_owned()
    }
}

impl Setting for String {
    fn read(value: &Value) -> Option<Self> {
        if let Value::Text(value) = value { Some(value.clone()) } else { None }
    }

    fn expected() -> String {
        "text".to_owned()
    }
}

impl<T: Setting> Setting for Vec<T> {
    fn read(value: &Value) -> Option<Self> {
        if let Value::List(values) = value { values.iter().map(T::read).collect() } else { None }
    }

    fn expected() -> String {
        format!("a list, each entry {}", T::expected())
    }
}

/// A setting that takes one of a few names.
pub(crate) trait Choice: Copy + 'static {
    /// Every name with the value that it stands for.
    const NAMES: &'static [(&'static str, Self)];
}

impl<T: Choice> Setting for T {
    fn read(value: &Value) -> Option<Self> {
        let Value::Text(name) = value else { return None };
        T::NAMES.iter().find(|(known, _)| known == name).map(|(_, choice)| *choice)
    }

    fn expected() -> String {
        let names: Vec<_> = T::NAMES.iter().map(|(name, _)| format!("{name:?}")).collect();
        format!("one of {}", names.join(", "))
    }
}

impl Choice for RopeStyle {
    const NAMES: &'static [(&'static str, Self)] = &[("interleaved", Self::Interleaved), ("neox", Self::NeoX)];
}

/// Declares a struct of settings. Each setting is declared only here: its meaning, its type, its external name if that
/// differs from the field name (`as "name"`), and its default if it has one (`= value`). A group is a nested struct of
/// settings whose names share the same namespace. `Default` sets settings without a default to zero or empty.
macro_rules! settings {
    (
        $(#[$about:meta])*
        pub struct $name:ident {
            $($(#[$meaning:meta])* $field:ident: $type:ty $(as $key:literal)? $(= $default:expr)?,)*
            $(..{ $($(#[$group_meaning:meta])* $group:ident: $group_type:ty,)* })?
        }
    ) => {
        $(#[$about])*
        #[derive(Debug, Clone)]
        pub struct $name {
            $($(#[$meaning])* pub $field: $type,)*
            $($($(#[$group_meaning])* pub $group: $group_type,)*)?
        }

        impl Default for $name {
            fn default() -> Self {
                Self {
                    $($field: settings!(@or_nothing $($default)?),)*
                    $($($group: Default::default(),)*)?
                }
            }
        }

        impl $name {
            /// Takes the settings of this struct out of `values`.
            ///
            /// # Errors
            /// `Error::Model` that names a setting that is missing or has a value of another type.
            pub fn take(values: &mut $crate::settings::Values) -> Result<Self, $crate::Error> {
                Ok(Self {
                    $($field: values.take(settings!(@key $field $($key)?), settings!(@optional $($default)?))?,)*
                    $($($group: <$group_type>::take(values)?,)*)?
                })
            }
        }
    };
    (@key $field:ident $key:literal) => { $key };
    (@key $field:ident) => { stringify!($field) };
    (@optional $default:expr) => { Some($default) };
    (@optional) => { None };
    (@or_nothing $default:expr) => { $default };
    (@or_nothing) => { Default::default() };
}
pub(crate) use settings;
