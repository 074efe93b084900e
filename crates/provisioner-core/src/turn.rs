use serde::Serialize;

/// Who has to act on a held resource.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Turn {
    /// The customer: an approval in Waldur, or files to remove.
    Customer,
    /// The provider's staff, in Waldur.
    Provider,
    /// The identity service, which does not know the group or user.
    Identity,
    /// The storage system, which cannot be read.
    Storage,
    /// An operator of the provisioner.
    Operator,
    /// The provisioner: a later pass continues.
    Provisioner,
}
