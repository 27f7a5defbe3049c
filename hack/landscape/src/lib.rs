//! The local landscape: real Kubernetes and Gardener components as processes.
