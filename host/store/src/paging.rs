//! Paging, the same over every backend: one item more than asked is fetched, to know whether there is a next page.

use crate::{Error, Page, Paged, Result, limits};
use std::str::FromStr;

/// How many rows to fetch for a page.
pub(crate) fn fetch(page: &Page) -> u32 {
    size(page) + 1
}

fn size(page: &Page) -> u32 {
    page.limit.clamp(1, limits::PAGE_ITEMS)
}

/// Cuts fetched rows to the page and makes the cursor of the next one.
pub(crate) fn paged<T>(page: &Page, mut items: Vec<T>, key: impl Fn(&T) -> String) -> Paged<T> {
    let size = size(page) as usize;
    let more = items.len() > size;
    items.truncate(size);
    let next = if more { items.last().map(key) } else { None };
    Paged { items, next }
}

/// The cursor as the key it was made of.
pub(crate) fn after<K>(page: &Page) -> Result<Option<K>>
where
    K: FromStr,
    K::Err: std::fmt::Display,
{
    page.after
        .as_deref()
        .map(|cursor| {
            cursor.parse().map_err(|error: K::Err| Error::Invalid {
                what: "cursor",
                why: error.to_string(),
            })
        })
        .transpose()
}
