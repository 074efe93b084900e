//! Mount points: built from slugs, or derived from a `backend_id`.

pub(crate) fn of_tenant(system: &str, data_type: &str, provider: &str) -> String {
    format!("/{system}/{data_type}/{provider}")
}

pub(crate) fn of_customer(system: &str, data_type: &str, provider: &str, customer: &str) -> String {
    format!("/{system}/{data_type}/{provider}/{customer}")
}

pub(crate) fn of_project(system: &str, data_type: &str, provider: &str, customer: &str, project: &str) -> String {
    format!("/{system}/{data_type}/{provider}/{customer}/{project}")
}

/// Mount points of the customer and of the tenant above a `backend_id`; `None` where the path has no such parent.
pub(crate) fn above(backend_id: &str) -> (Option<&str>, Option<&str>) {
    let customer = parent(backend_id.trim_end_matches('/'));
    let tenant = parent(customer);
    let is_present = |path: &'_ str| !path.is_empty();
    (Some(customer).filter(|path| is_present(path)), Some(tenant).filter(|path| is_present(path)))
}

/// The directory part of a POSIX path, like `dirname` of Python's `posixpath`.
fn parent(path: &str) -> &str {
    let head = path.rfind('/').map_or("", |slash| &path[..=slash]);
    let without_slashes = head.trim_end_matches('/');
    // A head that consists of slashes only is the root: keep it.
    if without_slashes.is_empty() { head } else { without_slashes }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parents_of_a_backend_id() {
        for (backend_id, customer, tenant) in [
            ("/scratch/mch/msclim", Some("/scratch/mch"), Some("/scratch")),
            ("/a/b/c/proj/", Some("/a/b/c"), Some("/a/b")),
            ("/only", Some("/"), Some("/")),
            ("relative", None, None),
            ("a/b", Some("a"), None),
            ("/", None, None),
            ("///", None, None),
            ("//x", Some("//"), Some("//")),
            ("/a//b", Some("/a"), Some("/")),
        ] {
            assert_eq!(above(backend_id), (customer, tenant), "{backend_id}");
        }
    }
}
