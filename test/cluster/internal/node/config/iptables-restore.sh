#!/bin/sh
# iptables-restore as kube-router runs it: what no NetworkPolicy allows is dropped in silence, as most network plugins do it, where
# kube-router would answer that the port is closed. A pod of which kube-router does not know yet is so kept waiting, not refused.
# It waits a little: kube-router writes all rules for each pod that comes or goes, with a hundred programs, and does it once for
# those that came meanwhile.
sleep 1
sed '/^-A KUBE-POD-FW-/s/ -j REJECT.*/ -j DROP/' | exec "{{.Debian}}/links/iptables-restore" "$@"
