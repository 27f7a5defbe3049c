//! A token endpoint like Entra ID and a blob gateway before Azurite.
