//go:build tools

// Package tools pins the Gardener programs of the landscape.
package tools

import (
	_ "github.com/gardener/gardener/cmd/gardener-apiserver"
	_ "github.com/gardener/gardener/cmd/gardener-controller-manager"
	_ "github.com/gardener/gardener/cmd/gardener-resource-manager"
)
