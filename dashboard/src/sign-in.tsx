import type { AuthError, Provider, SupabaseClient } from '@supabase/supabase-js'
import { useState } from 'preact/hooks'
import type { Config } from './config.ts'
import { Logo } from './icons.tsx'
import { ThemeSelect } from './theme.tsx'

/** Where people say who they are, in the ways that the configuration has: the project must allow them, too. */
export function SignIn({ config, supabase, notice }: { config: Config, supabase: SupabaseClient, notice?: string }) {
  const [email, setEmail] = useState('')
  const [password, setPassword] = useState('')
  const [isBusy, setBusy] = useState(false)
  const [said, setSaid] = useState<{ trouble?: string, news?: string }>({})
  const { signIn: ways } = config
  const here = location.origin + location.pathname

  /** Does something that may fail, and says how it went. */
  const attempt = async (doing: Promise<{ error: AuthError | null }>, news?: string) => {
    setBusy(true)
    setSaid({})
    const { error } = await doing
    setBusy(false)
    setSaid(error ? { trouble: sentenceFor(error) } : { news })
  }
  const withPassword = (credentials: { email: string, password: string }) => attempt(supabase.auth.signInWithPassword(credentials))
  const withLink = () => attempt(
    supabase.auth.signInWithOtp({ email, options: { shouldCreateUser: false, emailRedirectTo: here } }),
    `If there is an account of ${email}, a link is on its way there. It opens the dashboard.`)
  const withProvider = (provider: string) =>
    attempt(supabase.auth.signInWithOAuth({ provider: provider as Provider, options: { redirectTo: here } }))

  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    void (ways.includes('password') ? withPassword({ email, password }) : withLink())
  }
  const providers = ways.filter((way) => way !== 'password' && way !== 'link')
  const label = ways.includes('password') ? 'Sign in' : 'Mail me a link'
  return (
    <main class="alone sign-in">
      <Logo />
      <h1>Actorscope</h1>
      <p class="lead">Who did what, and for whom. Sign in to see your organizations.</p>
      {notice && <p class="notice" role="status">{notice}</p>}
      {(ways.includes('password') || ways.includes('link')) && (
        <form onSubmit={submit}>
          <label class="field wide">
            <span class="label">Email</span>
            <input type="email" name="email" autocomplete="username" required value={email} onInput={({ currentTarget }) => setEmail(currentTarget.value)} />
          </label>
          {ways.includes('password') && (
            <label class="field wide">
              <span class="label">Password</span>
              <input type="password" name="password" autocomplete="current-password" required value={password} onInput={({ currentTarget }) => setPassword(currentTarget.value)} />
            </label>
          )}
          <button type="submit" class="button primary" disabled={isBusy}>{isBusy ? 'One moment …' : label}</button>
          {ways.includes('password') && ways.includes('link') && (
            <button type="button" class="button" disabled={isBusy || !email.includes('@')} onClick={withLink}>Mail me a link instead</button>
          )}
        </form>
      )}
      {providers.map((provider) => (
        <button key={provider} type="button" class="button wide" disabled={isBusy} onClick={() => withProvider(provider)}>
          Go on with {provider.charAt(0).toUpperCase() + provider.slice(1)}
        </button>
      ))}
      <p class="form-trouble" role="alert">{said.trouble}</p>
      {said.news && <p class="notice" role="status">{said.news}</p>}
      {config.demo && <DemoPeople demo={config.demo} isBusy={isBusy} onChoose={withPassword} />}
      <footer><ThemeSelect /></footer>
    </main>
  )
}

type DemoProps = { demo: Config['demo'] & {}, isBusy: boolean, onChoose(chosen: { email: string, password: string }): void }

function DemoPeople({ demo: { password, people }, isBusy, onChoose }: DemoProps) {
  return (
    <section class="demo" aria-labelledby="demo">
      <h2 id="demo">Or come in as somebody of the demo world</h2>
      <ul>
        {people.map(({ email, about }) => (
          <li key={email}>
            <button type="button" class="demo-person" disabled={isBusy} onClick={() => onChoose({ email, password })}>
              <strong>{email}</strong> <span>{about}</span>
            </button>
          </li>
        ))}
      </ul>
    </section>
  )
}

function sentenceFor({ message, status }: AuthError): string {
  if (!status || status >= 500) return 'The project does not answer. Check that you are online and that it runs; then try again.'
  if (status === 429) return 'Too many tries. Wait a minute, then try again.'
  return /invalid login credentials/i.test(message) ? 'The email address and the password do not go together.' : `${message.replace(/\.$/, '')}.`
}
