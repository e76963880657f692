"""What a board measures: one module per kind of driver, and the sampler that asks them.

Adding a kind is adding a module with the shape of `agent.sensors.driver.Kind` and a line in
`agent.sensors.driver.KINDS`; nothing else knows the kinds by name.
"""
