//go:build !race

package repository

// slowdown is by how much less data the large tests use.
const slowdown = 1
