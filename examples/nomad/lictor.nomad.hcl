# Lictor on each client of a Nomad cluster. README.md says how to change and try it.
job "lictor" {
  type = "system" # one on each client

  constraint {
    attribute = "${attr.kernel.name}"
    value     = "linux"
  }

  update { max_parallel = 1 } # one host after another

  group "lictor" {
    network { mode = "host" } # the ports of services are those of the host

    ephemeral_disk { sticky = true } # a new version of the job finds the saved instances

    task "lictor" {
      driver = "docker"

      config {
        image        = "lictor:0.1.0"
        network_mode = "host"
        args         = ["run", "-config", "${NOMAD_TASK_DIR}/lictor.hcl"]
      }

      # Lictor's configuration. A change of it is a reload.
      template {
        destination   = "local/lictor.hcl" # in NOMAD_TASK_DIR
        change_mode   = "signal"
        change_signal = "SIGHUP"
        data          = <<-EOF
          state_dir      = "{{ env "NOMAD_ALLOC_DIR" }}/data/lictor"
          shutdown_grace = "20s"

          consul { register = true }

          service "web" { listen = 9000 }
        EOF
      }

      kill_timeout = "30s" # must be longer than shutdown_grace

      resources {
        cpu    = 200 # MHz
        memory = 128 # MB
      }
    }
  }
}
