//! The Gardener side: discovery, onboarding, dispatch.
