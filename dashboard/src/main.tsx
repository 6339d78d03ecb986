import { createClient } from '@supabase/supabase-js'
import { render } from 'preact'
import { App } from './app.tsx'
import { ConfigMissing, readConfig } from './config.ts'
import { Logo } from './icons.tsx'
import './style.css'
import { applyTheme } from './theme.tsx'

applyTheme()
const root = document.getElementById('app') as HTMLElement

async function start(): Promise<void> {
  try {
    const config = await readConfig()
    // The code in the address after a link or a provider is `?code=…`, since what is behind the # is a section's.
    const supabase = createClient(config.url, config.publishableKey, { auth: { flowType: 'pkce' } })
    render(<App config={config} supabase={supabase} />, root)
  } catch (error) {
    render(error instanceof ConfigMissing ? <Unconfigured /> : <Unreachable />, root)
  }
}

function Unconfigured() {
  return (
    <main class="alone">
      <Logo />
      <h1>Which project?</h1>
      <p>The dashboard does not know which Supabase project to ask. Put a file <code>config.json</code> beside its <code>index.html</code>:</p>
      <pre tabIndex={0}><code>{'{\n  "url": "https://<project>.supabase.co",\n  "publishableKey": "sb_publishable_…"\n}'}</code></pre>
      <p>Or build it with <code>VITE_SUPABASE_URL</code> and <code>VITE_SUPABASE_PUBLISHABLE_KEY</code> set.</p>
    </main>
  )
}

function Unreachable() {
  return (
    <main class="alone">
      <Logo />
      <h1>No answer</h1>
      <p role="alert">The host of this page does not answer. Check that you are online and, on your own machine, that <code>npm start</code> runs.</p>
      <button type="button" class="button primary" onClick={start}>Try again</button>
    </main>
  )
}

await start()
