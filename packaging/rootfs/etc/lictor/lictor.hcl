# The configuration of Lictor in a container. Lictor reads all *.hcl files in this folder: mount a file with services
# beside this one, or a folder over this one. docs/containers.md has examples.

# docker stop and podman stop kill after 10 seconds, so connections get less than that.
shutdown_grace = "8s"

# After a restart, the instances that Lictor saves here serve until Consul answers. Mount a volume to keep them when the
# container is replaced.
state_dir = "/var/lib/lictor"
