"""What the tests stand on: real servers, a real control plane, kubectl and Helm."""
