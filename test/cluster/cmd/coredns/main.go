// Command coredns is CoreDNS with the few plugins that a test cluster needs.
//
// The stock program links every plugin there is, with the clients of three
// clouds. This one shares its code, and so its build, with cmd/kubernetes.
package main

import (
	"github.com/coredns/coredns/coremain"
	_ "github.com/coredns/coredns/plugin/bind"       // one address, not all of the machine's
	_ "github.com/coredns/coredns/plugin/cache"      // of what is outside the cluster
	_ "github.com/coredns/coredns/plugin/errors"     // errors to the log
	_ "github.com/coredns/coredns/plugin/forward"    // names outside the cluster
	_ "github.com/coredns/coredns/plugin/kubernetes" // names of Services and pods
)

func main() {
	coremain.Run()
}
