//! Arguments that come as a dictionary: the signatures are in Python.

use pyo3::prelude::*;
use pyo3::types::PyDict;

use crate::errors::ArgumentError;

/// Arguments by name.
pub struct Fields<'a, 'py>(pub &'a Bound<'py, PyDict>);

impl<'py> Fields<'_, 'py> {
    /// The argument `name`; `None` stands for one that is not there.
    pub fn value<T>(&self, name: &str) -> PyResult<T>
    where
        T: for<'a> FromPyObject<'a, 'py>,
    {
        let none = || self.0.py().None().into_bound(self.0.py());
        let value = self.0.get_item(name)?.unwrap_or_else(none);
        value.extract::<T>().map_err(|error| {
            let error: PyErr = error.into();
            let shown = value.repr().map_or_else(
                |_| "a value without words".to_owned(),
                |repr| short(&repr.to_string()),
            );
            ArgumentError::new_err(format!("{name}: got {shown}: {error}"))
        })
    }

    /// As [`Self::value`], for the name of a choice.
    pub fn choice<T>(&self, name: &str, read: impl FnOnce(&str) -> Result<T, String>) -> PyResult<T> {
        let text: String = self.value(name)?;
        read(&text)
            .map_err(|expected| ArgumentError::new_err(format!("{name}: expected {expected}, got {text:?}")))
    }

    /// As [`Self::choice`], where `None` leaves the choice open.
    pub fn optional_choice<T>(
        &self,
        name: &str,
        read: impl FnOnce(&str) -> Result<T, String>,
    ) -> PyResult<Option<T>> {
        match self.value::<Option<String>>(name)? {
            None => Ok(None),
            Some(_) => self.choice(name, read).map(Some),
        }
    }
}

/// A value short enough for a message.
fn short(text: &str) -> String {
    const MOST: usize = 60;
    match text.chars().count() > MOST {
        true => text.chars().take(MOST).chain("...".chars()).collect(),
        false => text.to_owned(),
    }
}
