import type { SupabaseClient } from '@supabase/supabase-js'
import { useId, useState } from 'preact/hooks'
import type { Config } from './config.ts'
import { Logo } from './icons.tsx'
import { ThemeSelect } from './theme.tsx'

/** Where people say who they are: with a password, or with a link that is mailed to them. */
export function SignIn({ config, supabase, notice }: { config: Config, supabase: SupabaseClient, notice?: string }) {
  const [email, setEmail] = useState('')
  const [password, setPassword] = useState('')
  const [isBusy, setBusy] = useState(false)
  const [trouble, setTrouble] = useState<string>()
  const troubleId = useId()

  const signIn = async (credentials: { email: string, password: string }) => {
    setBusy(true)
    setTrouble(undefined)
    const { error } = await supabase.auth.signInWithPassword(credentials)
    setBusy(false)
    if (error) setTrouble(sentenceFor(error))
  }
  const submit = (event: SubmitEvent) => {
    event.preventDefault()
    void signIn({ email, password })
  }

  return (
    <main class="alone sign-in">
      <Logo />
      <h1>Actorscope</h1>
      <p class="lead">Who did what, and for whom. Sign in to see your organizations.</p>
      {notice && <p class="notice" role="status">{notice}</p>}
      <form onSubmit={submit} aria-describedby={trouble ? troubleId : undefined}>
        <label class="field wide">
          <span class="label">Email</span>
          <input type="email" name="email" autocomplete="username" required value={email} onInput={({ currentTarget }) => setEmail(currentTarget.value)} />
        </label>
        <label class="field wide">
          <span class="label">Password</span>
          <input type="password" name="password" autocomplete="current-password" required value={password} onInput={({ currentTarget }) => setPassword(currentTarget.value)} />
        </label>
        <p class="form-trouble" id={troubleId} role="alert">{trouble}</p>
        <button type="submit" class="button primary" disabled={isBusy}>{isBusy ? 'Signing in …' : 'Sign in'}</button>
      </form>
      {config.demo && <DemoPeople demo={config.demo} isBusy={isBusy} onChoose={(chosen) => void signIn(chosen)} />}
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

function sentenceFor({ message, status }: { message: string, status?: number }): string {
  if (!status || status >= 500) return 'The project does not answer. Check that you are online and that it runs; then try again.'
  if (status === 429) return 'Too many tries. Wait a minute, then try again.'
  return /invalid login credentials/i.test(message) ? 'The email address and the password do not go together.' : `${message}.`
}
