import { defineConfig } from 'vitest/config'

export default defineConfig({
  test: {
    include: ['tests/*.test.ts'],
    globalSetup: ['tests/setup.ts'],
    // Every file has a database of its own, all in one Postgres. Many tests wait for processes and time-outs, so more
    // files than cores keep two cores busy.
    maxWorkers: 4,
    testTimeout: 90_000,
    hookTimeout: 120_000,
  },
})
