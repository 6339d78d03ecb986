import { defineConfig } from 'vite'

// Built by build.mjs into dist/dashboard, for any host and any folder of it: all paths are relative.
// `npx vite dashboard` serves it while it is edited, with the configuration of the local stack.
export default defineConfig({
  base: './',
  oxc: { jsx: { runtime: 'automatic', importSource: 'preact' } },
  server: { proxy: Object.fromEntries(['/config.json', '/rest', '/auth'].map((path) => [path, 'http://127.0.0.1:54321'])) },
  build: {
    target: 'es2022',
    modulePreload: { polyfill: false },
    rolldownOptions: {
      checks: { pluginTimings: false },
      output: {
        // What changes seldom is kept by browsers while the rest changes.
        codeSplitting: { groups: [{ name: 'supabase', test: /@supabase/ }, { name: 'plot', test: /node_modules\/(@observablehq|d3|interval-tree|isoformat|internmap|robust|delaunator|binary)/ }] },
      },
    },
  },
})
