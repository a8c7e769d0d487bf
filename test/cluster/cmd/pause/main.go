// Command pause does nothing until it is told to stop: it is the process that
// holds a pod's network namespace while the pod's containers come and go.
package main

import (
	"context"
	"os/signal"
	"syscall"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGINT, syscall.SIGTERM)
	defer stop()
	signal.Ignore(syscall.SIGCHLD) // in a shared PID namespace it is the init: the kernel then reaps
	<-ctx.Done()
}
