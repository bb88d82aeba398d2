"""Lockstep: a site, its twins, its gateway and its operator in one process on virtual time, bit-identical by seed.

The same drivers, profiles, control code and twins as in real time. Modbus bytes cross in-memory transports through the
same framers, and so do OCPP's WebSocket frames; OPC UA and MQTT cross a message seam at the drivers' sessions. Nothing
waits: time jumps to the next timer.

    run_lockstep(LockstepRequest(site, profiles, out, duration_s=300.0, script=load_script()))

`LockstepRequest` (gateway.bench.lockstep.request):

- `site`, `profiles`: the site's model, and its profiles by *device* name, as `gateway.runtime.RunOptions` has them
- `out`: the run directory; gets `physics.csv`, `gateway.jsonl`, `gateway.log`, `orders.json`, `dso.jsonl` (with a
  script) and `end.json`, as a demo in real time leaves them, so that
  `gateway.bench.reports.report.write_report(out, site)` judges it
- `duration_s`: seconds of virtual time; with a script what it is spread over, from the gateway's first word on
- `seed`: of everything random (None: the site's `simulation.seed`)
- `period_ms`: the control period (None: the site's); what must outlast it is made at least twice as long. `step_ms`:
  the physics' step (100)
- `script`: what the operator says (sim_devices.dso.script.Script); None: nobody speaks. `beside`: folder of the
  script's own series
- `gateway_after_s`: how long the twins run before the gateway starts (0)
- `actions`: `(at_s, action)`, with `action(world: LockstepWorld) -> None | Awaitable[None]`, called so long after the
  script's begin (the run's, where there is none), in this order where times are equal. What is to be awaited goes on
  beside the run; an exception of an action ends the run and is raised
- `faults`: whether fault proxies stand between the gateway and the Modbus devices (False; they cost time)
- `physics_every`: every how many steps a row is written to `physics.csv` (1); `trace`: whether the journal has each
  cycle (True). A day at 100 ms wants neither: 90 MB and 480 MB, of which the journal keeps the last 128

`run_lockstep` is a plain call that returns None when the run directory is complete; it makes an event loop of its own,
so that within a running loop it is called by `asyncio.to_thread`. It raises `LockstepError` for what a user can mend,
before anything starts; an error of the gateway or of a twin is raised as it is. `end.json` has `problems` as the demo
writes them: failed checks of the operator, a script that did not end. No wall-clock time is in any of the files.

`LockstepWorld` (gateway.bench.lockstep.world), what an action is given:

- `now_s`: virtual seconds since the script's begin; `clock()`: the virtual monotonic clock of every part
- `site`, `physics` (SitePhysics: `devices`, `meters`, `inject_load_step`, ...), `dso` (DsoTwin or None)
- `network`: the virtual network (`VirtualNetwork`). `address(device)` of the world is `(host, port)` of a Modbus twin.
  `network.move(address)` gives the server another address, frees the old one and ends its connections: a
  proxy made with `loop.create_server` listens there and connects to the new one. `network.block(address)` lets nothing
  through, `network.refuse(address)` refuses connections, `network.reset(address)` ends those that there are,
  `network.restore(address)` undoes the first two
- `broker`: the in-memory MQTT broker (`stop`, `start`, `disconnect(identifier)`, `publish(topic, payload, retain)`)
- `opcua`: the in-memory OPC UA servers by device (`stop`, `start`, `restart`, `stalled`, `silent`, `show_status`)
- `modbus`: the Modbus twins' servers by device (`sim_devices.modbus.server.ModbusServer`)
- `gateway`: the Runtime now running, or None; `stop_gateway()` (orderly, awaited), `kill_gateway()` (as kill -9 would
  end it: nothing is written to any device) and `start_gateway()`
- `tell_twins(line)`: what the twins' control port answers to such a line (sim_devices.control_port)
- `tell_faults(line)`: what the faults' control port answers to such a line (sim_devices.faults.control), for Modbus
  devices: what has no wire here is refused. `faults`: the FaultWorld, or None unless asked for
- `spawn(coroutine, name)`: a task that lives as long as the run
"""
