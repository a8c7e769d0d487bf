package mysql

// LoadOptions say how a dump is loaded.
type LoadOptions struct{}
