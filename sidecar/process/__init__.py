"""The processes and threads of a running sidecar: what is started, kept in step, reloaded, drained and stopped.

    interpreter  what the collector of garbage looks at, how soon threads make way, memory that goes back
    sampler      a thread that reads the counter
    source       a counter that is there, one that is waited for, or none
    presence     whether the engine is there, and what it is
    lookout      what is asked beside the traffic: the engine's batch limit, what it has to do, other processes on the boards
    strangers    requests that an engine runs and that did not come through here
    inquiry      asks the engine after jobs that outlived their requests
    engine_steps where an engine's plugin tells of its steps
    learned      which calibrations the meter goes by: loaded, switched, saved
    errand       something done again and again, for which nothing waits
    accounts     what this run has measured and settled, kept in the ledger
    readings     what a meter and its sidecars say to each other
    publisher    a meter: reads one host's counter and tells sidecars elsewhere
    setting      under what joules were measured, for who compares two runs
    gauges       what metrics show beside the sums of records
    live         what the live page shows
    standing     how things stand at this moment: the account, each request in flight
    desk         where requests are metered: the meter, what it settles, who waits for it
    in_order     events of several processes, in the order of their times
    wire         what the processes of a sidecar say to each other, as bytes
    shared_desk  the desk of several processes
    link         the meter's end of the wire to a worker
    remote_desk  the desk as a worker process has it
    traffic      the traffic port of one process: front, relay, upstream
    worker       a process that relays, and meters by wire
    crew         the traffic port of several processes: started, replaced, drained
    apart        a place for records in a process of its own
    service      starts all of it, reloads it, drains it, stops it
"""
